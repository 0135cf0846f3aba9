// The system chaincode that tells of the chain: height, blocks and transactions.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { GatewayError, StatusCode } from '@hyperledger/fabric-gateway';
import { common, peer } from '@hyperledger/fabric-protos';

import { channelHeaderOf, headerHash } from '../src/blocks.js';
import { openNetwork } from '../src/network.js';
import { file, freshName, order, orderWithStatus } from '../src/orders.js';
import { take } from '../src/streams.js';

const UNKNOWN = 2;
const NEWEST = '18446744073709551615';

describe('queries of the chain', () => {
  let network;
  let alpha;
  let contract;
  let chain;
  before(async () => {
    network = await openNetwork();
    alpha = network.as(network.alpha);
    contract = alpha.contract(network.pair);
    chain = alpha.contract(network.pair, 'qscc');
  });
  after(() => network?.close());

  const info = async () => common.BlockchainInfo.deserializeBinary(await chain.evaluateTransaction('GetChainInfo', network.pair));
  const block = async (name, argument) => common.Block.deserializeBinary(await chain.evaluate(name, { arguments: [network.pair, argument] }));
  const transaction = async (id) => peer.ProcessedTransaction.deserializeBinary(await chain.evaluateTransaction('GetTransactionByID', network.pair, id));

  async function refused(promise, message) {
    await assert.rejects(promise, (error) => {
      assert.ok(error instanceof GatewayError);
      assert.equal(error.code, UNKNOWN, error.message);
      assert.equal(error.details[0].message, `chaincode response 500, ${message}`);
      return true;
    });
  }

  it('tell the height and the last hashes', async () => {
    const { blockNumber } = await orderWithStatus(contract, network.alpha);
    const found = await info();
    assert.equal(BigInt(found.getHeight()), blockNumber + 1n);
    const newest = await block('GetBlockByNumber', String(blockNumber));
    assert.deepEqual(Buffer.from(found.getCurrentblockhash_asU8()), headerHash(newest));
    assert.deepEqual(Buffer.from(found.getPreviousblockhash_asU8()), Buffer.from(newest.getHeader().getPreviousHash_asU8()));
  });

  it('give a block by its number, its hash, or a transaction in it: the one that is delivered', async () => {
    const { blockNumber, transactionId } = await orderWithStatus(contract, network.alpha);
    const blocks = await alpha.network(network.pair).getBlockEvents({ startBlock: blockNumber });
    const [delivered] = await take(blocks, 1);
    blocks.close();
    const same = (found) => assert.deepEqual(found.serializeBinary(), delivered.serializeBinary());
    same(await block('GetBlockByNumber', String(blockNumber)));
    same(await block('GetBlockByNumber', NEWEST));
    same(await block('GetBlockByHash', headerHash(delivered)));
    same(await block('GetBlockByTxID', transactionId));
    assert.equal((await block('GetBlockByNumber', '0')).getHeader().getNumber(), 0);
  });

  it('give a transaction as it was sent, and what became of it', async () => {
    const name = await order(contract, network.alpha);
    const amend = (content) => contract.newProposal('amend', { arguments: [file(network.alpha, name, content)] }).endorse();
    const [winner, loser] = [await amend('a\n'), await amend('b\n')];
    const won = await (await winner.submit()).getStatus();
    const lost = await (await loser.submit()).getStatus();
    for (const [status, code] of [[won, StatusCode.VALID], [lost, StatusCode.MVCC_READ_CONFLICT]]) {
      const found = await transaction(status.transactionId);
      assert.equal(found.getValidationcode(), code);
      assert.equal(channelHeaderOf(found.getTransactionenvelope()).getTxId(), status.transactionId);
    }
  });

  it('say what there is not', async () => {
    const { pair } = network;
    const nothing = 'f'.repeat(64);
    await refused(block('GetBlockByNumber', '99999'), 'Failed to get block number 99999, error no such block number [99999] in index');
    await refused(
      block('GetBlockByNumber', 'first'),
      'Failed to parse block number with error strconv.ParseUint: parsing "first": invalid syntax',
    );
    await refused(block('GetBlockByHash', 'hash'), 'Failed to get block hash hash, error no such block hash [68617368] in index');
    await refused(block('GetBlockByTxID', nothing), `Failed to get block for txID ${nothing}, error no such transaction ID [${nothing}] in index`);
    await refused(
      transaction(nothing),
      `Failed to get transaction with id ${nothing}, error no such transaction ID [${nothing}] in index`,
    );
    await refused(chain.evaluateTransaction('GetBlockByNumber', pair), 'missing 3rd argument for GetBlockByNumber');
    await refused(chain.evaluateTransaction('GetChainInfo'), 'Incorrect number of arguments, 1');
    await refused(chain.evaluateTransaction('GetChainInfo', 'nowhere'), 'Invalid chain ID, nowhere');
    await refused(
      chain.evaluateTransaction('Nonsense', pair, 'x'),
      `access denied for [Nonsense][${pair}]: [Unmapped policy for qscc/Nonsense]`,
    );
  });

  it('of another channel are for its readers', async () => {
    // Who is in both may ask through either.
    const height = async (contract) => common.BlockchainInfo.deserializeBinary(await contract.evaluateTransaction('GetChainInfo', network.all)).getHeight();
    const { blockNumber } = await orderWithStatus(alpha.contract(network.all), network.alpha);
    assert.equal(await height(chain), Number(blockNumber) + 1);
    const gamma = network.asStranger().contract(network.all, 'qscc');
    assert.equal(await height(gamma), Number(blockNumber) + 1);
    const policy =
      `Failed evaluating policy on signed data during check policy on channel [${network.pair}] with policy [/Channel/Application/Readers]: ` +
      "[implicit policy evaluation failed - 0 sub-policies were satisfied, but this policy requires 1 of the 'Readers' sub-policies to be satisfied]";
    await refused(gamma.evaluateTransaction('GetChainInfo', network.pair), `access denied for [GetChainInfo][${network.pair}]: [${policy}]`);
    await refused(gamma.evaluateTransaction('GetBlockByNumber', network.pair, '0'), `access denied for [GetBlockByNumber][${network.pair}]: [${policy}]`);
  });

  it('leave no trace', async () => {
    const before = (await info()).getHeight();
    await chain.evaluateTransaction('GetBlockByNumber', network.pair, '0');
    await contract.evaluateTransaction('order', file(network.alpha, freshName()));
    assert.equal((await info()).getHeight(), before);
  });
});
