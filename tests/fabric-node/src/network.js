// The network that the tests run on: the embedded ledger, or a real one that a file describes.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { EmbeddedLedger } from './ledger.js';
import { connect } from './member.js';

/**
 * Opens the network: `pair` is a channel of the first two of three members, `all` one of all three. On both the chaincode is
 * Charter's, and an agreement of the members is in force.
 *
 * The variable FABRIC_NETWORK names a JSON file that describes a real one:
 * {"chaincode", "pair", "all", "members": [{"name", "mspId", "endpoint", "serverName", "tlsCa", "certificate", "key",
 * "authority": {"certificate", "key"}}, …]}, where the last five are paths.
 */
export async function openNetwork() {
  const description = process.env.FABRIC_NETWORK;
  return description ? realNetwork(description) : embeddedNetwork();
}

async function embeddedNetwork() {
  const ledger = await EmbeddedLedger.start();
  const members = [ledger.member('alpha', 'AlphaMSP'), ledger.member('beta', 'BetaMSP'), ledger.member('gamma', 'GammaMSP')];
  return network({ ledger, chaincode: 'charter', pair: 'pair', all: 'all', members, folder: ledger.folder }, () => ledger.remove());
}

async function realNetwork(path) {
  const description = JSON.parse(readFileSync(path, 'utf8'));
  const members = description.members.map((member) => ({
    ...member,
    endpoint: () => member.endpoint,
    tlsCa: readFileSync(member.tlsCa),
    certificate: readFileSync(member.certificate),
    key: readFileSync(member.key),
  }));
  const folder = mkdtempSync(join(tmpdir(), 'charter-node-'));
  return network({ ...description, members, folder }, async () => rmSync(folder, { recursive: true, force: true }));
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
    async close() {
      for (const connection of connections) {
        connection.close();
      }
      await remove();
    },
  };
}
