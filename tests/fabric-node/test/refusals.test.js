// What a client is told when it may not, or when there is no such thing: codes, texts and details of a peer's gateway.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { CommitStatusError, EndorseError, GatewayError, SubmitError } from '@hyperledger/fabric-gateway';

import { expiredClient, foreignClient, hasOpenssl } from '../src/certificates.js';
import { signerOf } from '../src/member.js';
import { beforeFabric3, openNetwork } from '../src/network.js';
import { file, freshName, order } from '../src/orders.js';
import { refusalOf } from '../src/streams.js';

const GRPC = { UNKNOWN: 2, PERMISSION_DENIED: 7, FAILED_PRECONDITION: 9, ABORTED: 10, UNAVAILABLE: 14 };
const NOT_ENDORSED = 'failed to endorse transaction, see attached details for more info';
const NO_READER =
  "implicit policy evaluation failed - 0 sub-policies were satisfied, but this policy requires 1 of the 'Readers' sub-policies to be satisfied";

describe('refusals', () => {
  let network;
  let alpha;
  before(async () => {
    network = await openNetwork();
    alpha = network.as(network.alpha);
  });
  after(() => network?.close());

  /** Checks an error of the client: its kind, code, text, and what the nodes behind the gateway said. */
  async function refused(promise, { kind = GatewayError, code, message, detail, mspId }) {
    await assert.rejects(promise, (error) => {
      assert.ok(error instanceof kind, `${error.name}: ${error.message}`);
      assert.equal(error.code, code, error.message);
      matches(error.message, message);
      if (detail === undefined) {
        assert.deepEqual(error.details, []);
      } else {
        assert.ok(error.details.length > 0, `no details: ${error.message}`);
        matches(error.details[0].message, detail);
        assert.equal(error.details[0].mspId, mspId ?? network.alpha.mspId);
        assert.notEqual(error.details[0].address, '');
      }
      return true;
    });
  }

  function matches(text, wanted) {
    if (wanted instanceof RegExp) {
      assert.match(text, wanted);
    } else {
      assert.ok(text.endsWith(wanted), `«${text}» doesn't end with «${wanted}»`);
    }
  }

  const evaluate = (connection, channel, ...words) => connection.contract(channel).evaluateTransaction(...(words.length ? words : ['agreement']));
  const propose = (connection, channel, options = {}) =>
    connection.contract(channel).newProposal('order', { arguments: [file(network.alpha, freshName())], ...options });

  it('of the chaincode carry its own words and status', async () => {
    const nothing = 'chaincode response 404, resource nothing was never ordered on this channel';
    await refused(evaluate(alpha, network.pair, 'resource', 'nothing'), {
      code: GRPC.UNKNOWN,
      message: `evaluate call to endorser returned error: ${nothing}`,
      detail: nothing,
    });
    const name = await order(alpha.contract(network.pair), network.alpha);
    const again = alpha.contract(network.pair).submitTransaction('order', file(network.alpha, name));
    const words = new RegExp(`^chaincode response 409, the change is refused: .*${name}`);
    await refused(again, { kind: EndorseError, code: GRPC.ABORTED, message: NOT_ENDORSED, detail: words });
    await assert.rejects(again, (error) => /^[0-9a-f]{64}$/.test(error.transactionId));
    await refused(evaluate(alpha, network.pair, 'nonsense'), {
      code: GRPC.UNKNOWN,
      message: /the chaincode has no function "nonsense"/,
      detail: /^chaincode response 400, /,
    });
  });

  it('of a chaincode that is not there', async () => {
    const other = alpha.contract(network.pair, 'other');
    await refused(other.evaluateTransaction('x'), {
      code: GRPC.FAILED_PRECONDITION,
      message: `no peers available to evaluate chaincode other in channel ${network.pair}`,
    });
    await refused(other.submitTransaction('x'), {
      kind: EndorseError,
      code: GRPC.FAILED_PRECONDITION,
      message: /no combination of peers can be derived which satisfy the endorsement policy: .*other/,
    });
  });

  it('of a channel that is not there', async () => {
    const text = 'failed to get config for channel [nowhere]: could not get last config for channel nowhere';
    await refused(evaluate(alpha, 'nowhere'), { code: GRPC.UNAVAILABLE, message: text });
    await refused(propose(alpha, 'nowhere').endorse(), {
      kind: EndorseError,
      code: GRPC.FAILED_PRECONDITION,
      message: /no combination of peers can be derived which satisfy the endorsement policy/,
    });
    await refused(alpha.commitOf('nowhere', 'abc').getStatus(), {
      kind: CommitStatusError,
      code: GRPC.PERMISSION_DENIED,
      message: 'Failed to get policy manager for channel [nowhere]',
    });
    const events = await refusalOf(await alpha.network('nowhere').getChaincodeEvents(network.chaincode));
    assert.equal(events.code, GRPC.PERMISSION_DENIED);
    assert.match((await refusalOf(await alpha.network('nowhere').getBlockEvents())).message, /404/);
  });

  it('of organisations that have no peer in the channel', async () => {
    await refused(propose(alpha, network.pair, { endorsingOrganizations: [network.gamma.mspId, network.alpha.mspId] }).endorse(), {
      kind: EndorseError,
      code: GRPC.UNAVAILABLE,
      message: `failed to find any endorsing peers for org(s): ${network.gamma.mspId}`,
    });
    const question = alpha.contract(network.pair).evaluate('agreement', { endorsingOrganizations: [network.gamma.mspId] });
    await refused(question, {
      code: GRPC.FAILED_PRECONDITION,
      message: `no peers available to evaluate chaincode ${network.chaincode} in channel ${network.pair}`,
    });
  });

  it('of a member of another channel, who is a stranger in this one', async () => {
    const gamma = network.asStranger();
    const stranger = `access denied: channel [${network.pair}] creator org unknown, creator is malformed`;
    const { mspId } = network.alpha;
    await refused(evaluate(gamma, network.pair), {
      code: GRPC.FAILED_PRECONDITION,
      message: stranger,
      detail: stranger,
      mspId,
    });
    await refused(propose(gamma, network.pair).endorse(), {
      kind: EndorseError,
      code: GRPC.ABORTED,
      message: NOT_ENDORSED,
      detail: stranger,
      mspId,
    });
    await refusesToBeRead(gamma);
    // Where it belongs it may.
    assert.ok((await evaluate(gamma, network.all)).length > 0);
  });

  it('of a signature with somebody else\'s key', async () => {
    const thief = network.as(network.alpha, { signer: signerOf(network.beta.key) });
    await refusesIdentity(thief, `creator org [${network.alpha.mspId}]`);
  });

  it('of a signature in its other form, which Fabric forbids', async () => {
    const low = signerOf(network.alpha.key);
    const bent = network.as(network.alpha, { signer: async (digest) => withHighS(await low(digest)) });
    await refusesIdentity(bent, `creator org [${network.alpha.mspId}]`);
  });

  it('of a certificate that another authority has signed', { skip: !hasOpenssl && 'openssl is missing' }, async () => {
    const foreign = network.as(network.alpha, foreignClient(network.folder));
    await refusesIdentity(foreign, 'creator org unknown, creator is malformed');
  });

  it('of a certificate that has expired', { skip: !hasOpenssl && 'openssl is missing' }, async () => {
    const expired = network.as(network.alpha, expiredClient(network.folder, network.alpha.authority));
    await refused(submitted(expired), {
      kind: SubmitError,
      code: GRPC.ABORTED,
      message: 'received unsuccessful response from orderer: status=BAD_REQUEST, info=broadcast client identity expired',
    });
    assert.match((await refusalOf(await expired.network(network.pair).getBlockEvents())).message, /403/);
  });

  it('of proposals whose signer or whose clock is out of time', { skip: beforeFabric3 || (!hasOpenssl && 'openssl is missing') }, async () => {
    const outOfTime = async (make, detail) => {
      await refused((await make()).evaluate(), {
        code: GRPC.UNAVAILABLE,
        message: 'failed to evaluate transaction, see attached details for more info',
        detail,
      });
      await refused((await make()).endorse(), { kind: EndorseError, code: GRPC.ABORTED, message: NOT_ENDORSED, detail });
    };
    const expired = network.as(network.alpha, expiredClient(network.folder, network.alpha.authority));
    await outOfTime(async () => propose(expired, network.pair), 'proposal client identity expired');
    for (const minutes of [16, -16]) {
      await outOfTime(async () => alpha.proposedAgo(propose(alpha, network.pair), minutes * 60), /^request unauthorized due to incorrect timestamp /);
    }
    for (const minutes of [14, -14]) {
      await (await alpha.proposedAgo(propose(alpha, network.pair), minutes * 60)).endorse();
    }
  });

  /** Checks what somebody is told who claims to be alpha, and isn't. */
  async function refusesIdentity(connection, why) {
    const denied = `access denied: channel [${network.pair}] ${why}`;
    await refused(evaluate(connection, network.pair), {
      code: GRPC.FAILED_PRECONDITION,
      message: `evaluate call to endorser returned error: error validating proposal: ${denied}`,
      detail: `error validating proposal: ${denied}`,
    });
    await refused(propose(connection, network.pair).endorse(), {
      kind: EndorseError,
      code: GRPC.ABORTED,
      message: NOT_ENDORSED,
      detail: `error validating proposal: ${denied}`,
    });
    await refused(submitted(connection), {
      kind: SubmitError,
      code: GRPC.ABORTED,
      message: /received unsuccessful response from orderer: status=FORBIDDEN, info=implicit policy evaluation failed - 0 sub-policies were satisfied, but this policy requires 1 of the 'Writers' sub-policies to be satisfied: permission denied$/,
    });
    await refusesToBeRead(connection);
  }

  /** Checks that nothing of the channel is shown: no status, no events, no blocks in any form. */
  async function refusesToBeRead(connection) {
    const { pair, chaincode } = network;
    const { transactionId } = await (await alpha.contract(pair).submitAsync('order', { arguments: [file(network.alpha, freshName())] })).getStatus();
    const policy = `Failed evaluating policy on signed data during check policy on channel [${pair}] with policy [/Channel/Application/Readers]: [${NO_READER}]`;
    await refused(connection.commitOf(pair, transactionId).getStatus(), {
      kind: CommitStatusError,
      code: GRPC.PERMISSION_DENIED,
      message: policy,
    });
    const events = await refusalOf(await connection.network(pair).getChaincodeEvents(chaincode, { startBlock: 0n }));
    assert.equal(events.code, GRPC.PERMISSION_DENIED);
    matches(events.message, policy);
    const forms = ['getBlockEvents', 'getFilteredBlockEvents', 'getBlockAndPrivateDataEvents'];
    for (const form of forms) {
      const refusal = await refusalOf(await connection.network(pair)[form]({ startBlock: 0n }));
      assert.match(refusal.message, /403/, form);
    }
  }

  /** Endorses as alpha, and submits in somebody else's name. */
  async function submitted(connection) {
    return connection.submitInOwnName(await propose(alpha, network.pair).endorse());
  }
});

/** The other signature that fits: with the order of P-256's group minus s. */
function withHighS(der) {
  const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
  const rLength = der[3];
  const s = BigInt(`0x${Buffer.from(der.subarray(4 + rLength + 2)).toString('hex')}`);
  const high = Buffer.from((order - s).toString(16).padStart(64, '0'), 'hex');
  const body = Buffer.concat([der.subarray(2, 4 + rLength), Buffer.of(0x02, 33, 0), high]);
  return Buffer.concat([Buffer.of(0x30, body.length), body]);
}
