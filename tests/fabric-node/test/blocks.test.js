// Blocks: whole, filtered, and with private data; from any position, followed, and taken up again.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { checkpointers, StatusCode } from '@hyperledger/fabric-gateway';
import { common } from '@hyperledger/fabric-protos';

import { channelHeaders, codes, dataHash, headerHash, holds } from '../src/blocks.js';
import { Behavior, Content, deliver } from '../src/deliver.js';
import { signerOf } from '../src/member.js';
import { beforeFabric3, openNetwork } from '../src/network.js';
import { contentOf, file, freshName, order, orderWithStatus } from '../src/orders.js';
import { take, takeUntil } from '../src/streams.js';

const MINUTE = 60;
const { CONFIG, ENDORSER_TRANSACTION } = common.HeaderType;

describe('blocks', () => {
  let network;
  let alpha;
  let contract;
  before(async () => {
    network = await openNetwork();
    alpha = network.as(network.alpha);
    contract = alpha.contract(network.pair);
  });
  after(() => network?.close());

  const blocksOf = (options, connection = alpha) => connection.network(network.pair).getBlockEvents(options);
  const upTo = (number) => (taken) => taken.some((block) => BigInt(block.getHeader?.().getNumber() ?? block.getNumber()) >= number);

  it('are read from block 0, and each one vouches for the one before', async () => {
    const last = await orderWithStatus(contract, network.alpha);
    const blocks = await blocksOf({ startBlock: 0n });
    const taken = await takeUntil(blocks, upTo(last.blockNumber));
    blocks.close();
    for (const [number, block] of taken.entries()) {
      const header = block.getHeader();
      assert.equal(header.getNumber(), number);
      assert.deepEqual(Buffer.from(header.getDataHash_asU8()), dataHash(block));
      const previous = number === 0 ? Buffer.alloc(0) : headerHash(taken[number - 1]);
      assert.deepEqual(Buffer.from(header.getPreviousHash_asU8()), previous, `block ${number}`);
      assert.equal(codes(block).length, block.getData().getDataList().length, 'every transaction has its code');
    }
    assert.equal(channelHeaders(taken[0])[0].getType(), CONFIG, 'the first block is the channel\'s configuration');
    const headers = channelHeaders(taken.at(-1));
    const index = headers.findIndex((header) => header.getTxId() === last.transactionId);
    assert.equal(headers[index].getChannelId(), network.pair);
    assert.equal(codes(taken.at(-1))[index], StatusCode.VALID);
    assert.ok(holds(taken.at(-1), last.name), 'what was ordered is there to read');
  });

  it('are filtered to ids, codes and the names of events', async () => {
    const name = await order(contract, network.alpha);
    const amend = (content) => contract.newProposal('amend', { arguments: [file(network.alpha, name, content)] }).endorse();
    const [winner, loser] = [await amend('a\n'), await amend('b\n')];
    const won = await (await winner.submit()).getStatus();
    const lost = await (await loser.submit()).getStatus();
    const blocks = await alpha.network(network.pair).getFilteredBlockEvents({ startBlock: 0n });
    const taken = await takeUntil(blocks, upTo(lost.blockNumber));
    blocks.close();
    assert.deepEqual(taken.map((block) => block.getNumber()), [...taken.keys()]);
    assert.ok(taken.every((block) => block.getChannelId() === network.pair));

    const [configuration] = taken[0].getFilteredTransactionsList();
    assert.equal(configuration.getType(), CONFIG);
    assert.equal(configuration.hasTransactionActions(), false);
    const find = ({ transactionId, blockNumber }) =>
      taken[Number(blockNumber)].getFilteredTransactionsList().find((transaction) => transaction.getTxid() === transactionId);
    for (const [status, code] of [[won, StatusCode.VALID], [lost, StatusCode.MVCC_READ_CONFLICT]]) {
      const transaction = find(status);
      assert.equal(transaction.getType(), ENDORSER_TRANSACTION);
      assert.equal(transaction.getTxValidationCode(), code);
      const [action] = transaction.getTransactionActions().getChaincodeActionsList();
      const event = action.getChaincodeEvent();
      assert.equal(event.getChaincodeId(), network.chaincode);
      assert.equal(event.getTxId(), status.transactionId);
      assert.notEqual(event.getEventName(), '');
      assert.equal(event.getPayload().length, 0, 'what the event says is left away');
    }
    assert.equal(taken.some((block) => holds(block, name)), false, 'nothing of what was ordered is in a filtered block');
  });

  it('come with the private data that there is: none', async () => {
    const { blockNumber } = await orderWithStatus(contract, network.alpha);
    const both = await alpha.network(network.pair).getBlockAndPrivateDataEvents({ startBlock: blockNumber });
    const [one] = await take(both, 1);
    both.close();
    const whole = await blocksOf({ startBlock: blockNumber });
    const [block] = await take(whole, 1);
    whole.close();
    assert.deepEqual(one.getBlock().serializeBinary(), block.serializeBinary());
    assert.equal(one.getPrivateDataMapMap().getLength(), 0);
  });

  it('are followed from the next one on when nobody says where', async () => {
    for (const form of ['getBlockEvents', 'getFilteredBlockEvents', 'getBlockAndPrivateDataEvents']) {
      const { blockNumber: before } = await orderWithStatus(contract, network.alpha);
      const blocks = await alpha.network(network.pair)[form]();
      const first = take(blocks, 1);
      let came = false;
      first.then(() => (came = true), () => (came = true));
      while (!came) {
        await order(contract, network.alpha);
      }
      const [block] = await first;
      const number = (block.getBlock?.() ?? block).getHeader?.().getNumber() ?? block.getNumber();
      assert.ok(BigInt(number) > before, form);
      blocks.close();
    }
  });

  it('go on at a checkpoint', async () => {
    const { blockNumber } = await orderWithStatus(contract, network.alpha);
    const checkpointer = checkpointers.inMemory();
    const blocks = await blocksOf({ checkpoint: checkpointer, startBlock: blockNumber });
    await take(blocks, 1);
    blocks.close();
    await checkpointer.checkpointBlock(blockNumber);
    await order(contract, network.alpha);
    const resumed = await blocksOf({ checkpoint: checkpointer, startBlock: 0n });
    const [next] = await take(resumed, 1);
    resumed.close();
    assert.equal(BigInt(next.getHeader().getNumber()), blockNumber + 1n);
  });

  it('are asked for with a signature from elsewhere', async () => {
    const silent = network.as(network.alpha, { signer: null });
    const signature = signerOf(network.alpha.key);
    for (const form of ['BlockEvents', 'FilteredBlockEvents', 'BlockAndPrivateDataEvents']) {
      const unsigned = silent.network(network.pair)[`new${form}Request`]({ startBlock: 0n });
      const request = silent.gateway[`newSigned${form}Request`](unsigned.getBytes(), await signature(unsigned.getDigest()));
      const blocks = await request.getEvents();
      const [first] = await take(blocks, 1);
      assert.equal((first.getBlock?.() ?? first).getHeader?.().getNumber() ?? first.getNumber(), 0, form);
      blocks.close();
    }
  });

  it('are sought in every form that the protocol has', async () => {
    const { blockNumber } = await orderWithStatus(contract, network.alpha);
    const newest = Number(blockNumber);
    const failing = { behavior: Behavior.FAIL_IF_NOT_READY };
    const ask = async (seek, answers) => {
      const stream = deliver(alpha, network.alpha);
      await stream.seek(network.pair, seek);
      for (const expected of answers) {
        assert.equal(await stream.next(), expected, JSON.stringify(seek));
      }
      stream.close();
    };
    await ask({ start: 'newest', stop: 'newest' }, [newest, 'status 200']);
    await ask({ start: 'oldest', stop: 'oldest' }, [0, 'status 200']);
    await ask({ start: newest - 1, stop: 'newest' }, [newest - 1, newest, 'status 200']);
    await ask({ start: 1, stop: 2 }, [1, 2, 'status 200']);
    await ask({ start: newest, stop: newest + 5, ...failing }, [newest, 'status 404', 'end']);
    await ask({ start: 'next', stop: Number.MAX_SAFE_INTEGER, ...failing }, ['status 404', 'end']);
    await ask({ start: newest + 2, stop: newest + 5 }, ['status 404', 'end']);
    await ask({ start: 2, stop: 1 }, ['status 400', 'end']);
    await ask({ start: 'nothing', stop: 1 }, ['status 404', 'end']);
    await ask({ start: 1 }, ['status 400', 'end']);
    await ask({ stop: 1 }, ['status 400', 'end']);

    const waiting = deliver(alpha, network.alpha);
    await waiting.seek(network.pair, { start: newest, stop: newest + 1 });
    // Once there is an answer the request was taken, and the block that it waits for may come.
    assert.equal(await waiting.next(), newest);
    await order(contract, network.alpha);
    assert.equal(await waiting.next(), newest + 1);
    assert.equal(await waiting.next(), 'status 200');
    // The same stream takes another request once the first is done.
    await waiting.seek(network.pair, { start: 0, stop: 0 });
    assert.equal(await waiting.next(), 0);
    assert.equal(await waiting.next(), 'status 200');
    waiting.close();
  });

  it('are sent without their transactions to who only wants the headers', { skip: beforeFabric3 }, async () => {
    for (const method of ['Deliver', 'DeliverWithPrivateData']) {
      const stream = deliver(alpha, network.alpha, method);
      await stream.seek(network.pair, { start: 0, stop: 1, content: Content.HEADER_WITH_SIG });
      const next = async () => {
        const message = await stream.message();
        return message.getBlock() ?? message.getBlockAndPrivateData().getBlock();
      };
      assert.equal((await next()).getData().getDataList().length, 1, 'a configuration is always whole');
      const block = await next();
      assert.equal(block.getHeader().getNumber(), 1);
      assert.equal(block.hasData(), false);
      assert.equal(codes(block).length, 1);
      stream.close();
    }
  });

  it('are refused when the request is older or newer than fifteen minutes', async () => {
    for (const method of ['Deliver', 'DeliverFiltered', 'DeliverWithPrivateData']) {
      for (const [minutes, expected] of [[14, 0], [-14, 0], [16, 'status 400'], [-16, 'status 400']]) {
        const stream = deliver(alpha, network.alpha, method);
        await stream.seek(network.pair, { start: 0, stop: 0, secondsAgo: minutes * MINUTE });
        assert.equal(await stream.next(), expected, `${method}, ${minutes} minutes ago`);
        stream.close();
      }
    }
  });

  it('are refused to a stranger, and of a channel that is not there', async () => {
    const gamma = network.asStranger();
    for (const method of ['Deliver', 'DeliverFiltered', 'DeliverWithPrivateData']) {
      for (const [channel, expected] of [[network.pair, 'status 403'], ['nowhere', 'status 404'], [network.all, 0]]) {
        const stream = deliver(gamma, network.gamma, method);
        await stream.seek(channel, { start: 0, stop: 0 });
        assert.equal(await stream.next(), expected, `${method} of ${channel}`);
        stream.close();
      }
    }
  });

  it('come to many readers at once, to all the same', async () => {
    const { blockNumber } = await orderWithStatus(contract, network.alpha);
    const readers = await Promise.all(
      Array.from({ length: 20 }, async (_, index) => {
        const connection = index % 2 ? alpha : network.as(network.beta);
        const blocks = await blocksOf({ startBlock: 0n }, connection);
        const taken = await takeUntil(blocks, upTo(blockNumber));
        blocks.close();
        return taken.slice(0, Number(blockNumber) + 1).map((block) => headerHash(block).toString('hex')).join();
      }),
    );
    assert.equal(new Set(readers).size, 1);
  });

  it('hold many transactions when many come at once', async () => {
    const names = Array.from({ length: 40 }, () => freshName());
    const statuses = await Promise.all(
      names.map(async (name) => (await contract.submitAsync('order', { arguments: [file(network.alpha, name)] })).getStatus()),
    );
    // Each one is told what became of it, and what is told is so.
    for (const [index, status] of statuses.entries()) {
      const allowed = [StatusCode.VALID, StatusCode.MVCC_READ_CONFLICT, StatusCode.PHANTOM_READ_CONFLICT];
      assert.ok(allowed.includes(status.code), String(status.code));
      const reading = contentOf(contract, names[index]);
      await (status.successful ? reading : assert.rejects(reading, /was never ordered/));
    }
    assert.ok(statuses.some((status) => status.successful));
  });
});
