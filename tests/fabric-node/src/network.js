// The network that the tests run on: the embedded ledger, or a real one that a file describes.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { agree } from './agreement.js';
import { EmbeddedLedger } from './ledger.js';
import { connect } from './member.js';

const described = process.env.FABRIC_NETWORK && JSON.parse(readFileSync(process.env.FABRIC_NETWORK, 'utf8'));

/** Why tests are passed over that a network needs Fabric 3 for; the embedded ledger does what Fabric 3 does. */
export const beforeFabric3 = Boolean(described) && Number.parseInt(described.version) < 3 && 'this network is older than Fabric 3';
/** Why tests are passed over that kill the ledger. */
export const notOurs = Boolean(described) && 'a real network is not ours to kill';

/**
 * Opens the network: `pair` is a channel of the first two of three members, `all` one of all three. On both the chaincode is
 * Charter's, and an agreement of the members is in force; on a real network they agree first, if they haven't.
 *
 * The variable FABRIC_NETWORK names a JSON file that describes a real one:
 * {"version", "chaincode", "pair", "all", "members": [{"name", "mspId", "endpoint", "serverName", "tlsCa", "certificate", "key",
 * "authority": {"certificate", "key"}}, …]}, where the last five are paths.
 */
export async function openNetwork() {
  return described ? realNetwork(described) : embeddedNetwork();
}

async function embeddedNetwork() {
  const ledger = await EmbeddedLedger.start();
  const members = [ledger.member('alpha', 'AlphaMSP'), ledger.member('beta', 'BetaMSP'), ledger.member('gamma', 'GammaMSP')];
  return network({ ledger, chaincode: 'charter', pair: 'pair', all: 'all', members, folder: ledger.folder }, () => ledger.remove());
}

async function realNetwork(description) {
  const members = description.members.map((member) => ({
    ...member,
    endpoint: () => member.endpoint,
    tlsCa: readFileSync(member.tlsCa),
    certificate: readFileSync(member.certificate),
    key: readFileSync(member.key),
  }));
  const folder = mkdtempSync(join(tmpdir(), 'charter-node-'));
  const opened = network({ ...description, members, folder }, async () => rmSync(folder, { recursive: true, force: true }));
  try {
    await agree(opened, opened.pair, members.slice(0, 2), 1);
    await agree(opened, opened.all, members, 2);
  } catch (error) {
    await opened.close();
    throw error;
  }
  return opened;
}

function network(parts, remove) {
  const connections = [];
  return {
    ...parts,
    alpha: parts.members[0],
    beta: parts.members[1],
    gamma: parts.members[2],
    /** Connects as a member; the connection lasts as long as the network. */
    as(member, options) {
      const connection = connect(member, parts.chaincode, options);
      connections.push(connection);
      return connection;
    },
    /** Connects as the third member to the first one's peer, which has a channel that the third one is no member of. */
    asStranger() {
      const { endpoint, tlsCa, serverName } = parts.members[0];
      return this.as(parts.members[2], { endpoint, tlsCa, serverName });
    },
    async close() {
      for (const connection of connections) {
        connection.close();
      }
      await remove();
    },
  };
}
