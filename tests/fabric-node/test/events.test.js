// Chaincode events: from the first block, from now, after a transaction, and again after an interruption.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';

import { checkpointers, StatusCode } from '@hyperledger/fabric-gateway';

import { signerOf } from '../src/member.js';
import { notOurs, openNetwork } from '../src/network.js';
import { file, freshName, namesIn, order, orderWithStatus } from '../src/orders.js';
import { take, takeUntil } from '../src/streams.js';

describe('chaincode events', () => {
  let network;
  let alpha;
  let contract;
  before(async () => {
    network = await openNetwork();
    alpha = network.as(network.alpha);
    contract = alpha.contract(network.pair);
  });
  after(() => network?.close());

  const eventsOf = (options, connection = alpha) => connection.network(network.pair).getChaincodeEvents(network.chaincode, options);
  const has = (name) => (taken) => taken.some((event) => namesIn(event).includes(name));

  it('are read from block 0, all of them in the ledger\'s order', async () => {
    const ordered = [await orderWithStatus(contract, network.alpha), await orderWithStatus(contract, network.alpha)];
    const events = await eventsOf({ startBlock: 0n });
    try {
      const taken = await takeUntil(events, has(ordered[1].name));
      // The members' first words come first.
      assert.match(taken[0].eventName, /registered/i);
      for (const [index, event] of taken.entries()) {
        assert.equal(event.chaincodeName, network.chaincode);
        assert.match(event.transactionId, /^[0-9a-f]{64}$/);
        assert.ok(index === 0 || event.blockNumber >= taken[index - 1].blockNumber, 'blocks only rise');
        // What the chaincode says is a document that any CloudEvents reader takes.
        const document = JSON.parse(new TextDecoder().decode(event.payload));
        assert.equal(document.specversion, '1.0');
      }
      for (const { name, transactionId, blockNumber } of ordered) {
        const of = taken.filter((event) => event.transactionId === transactionId);
        assert.equal(of.length, 1, 'a transaction has one event');
        assert.equal(of[0].blockNumber, blockNumber);
        assert.deepEqual([...new Set(namesIn(of[0]))], [name]);
      }
    } finally {
      events.close();
    }
  });

  it('begin with the next block when nobody says where', async () => {
    const earlier = await order(contract, network.alpha);
    const events = await eventsOf();
    // The stream is known to stand once an event comes; what is ordered until then may or may not be in it.
    const first = take(events, 1);
    let later;
    let came = false;
    first.then(() => (came = true), () => (came = true));
    while (!came) {
      later = await orderWithStatus(contract, network.alpha);
    }
    const [event] = await first;
    assert.equal(namesIn(event).includes(earlier), false, 'what was before is not told');
    const rest = await takeUntil(events, has((await orderWithStatus(contract, network.alpha)).name));
    assert.ok(rest.length >= 1);
    assert.ok(rest.at(-1).blockNumber > later.blockNumber);
    events.close();
  });

  it('begin after a transaction that is named', async () => {
    const first = await orderWithStatus(contract, network.alpha);
    const second = await orderWithStatus(contract, network.alpha);
    const third = await orderWithStatus(contract, network.alpha);
    const checkpoint = { getBlockNumber: () => first.blockNumber, getTransactionId: () => first.transactionId };
    const events = await eventsOf({ checkpoint });
    const taken = await take(events, 2);
    assert.deepEqual(taken.map((event) => event.transactionId), [second.transactionId, third.transactionId]);
    events.close();
  });

  it('of transactions that are not valid never come', async () => {
    const name = await order(contract, network.alpha);
    const amend = (content) => contract.newProposal('amend', { arguments: [file(network.alpha, name, content)] }).endorse();
    const [winner, loser] = [await amend('a\n'), await amend('b\n')];
    const won = await (await winner.submit()).getStatus();
    const lost = await (await loser.submit()).getStatus();
    assert.deepEqual([won.code, lost.code], [StatusCode.VALID, StatusCode.MVCC_READ_CONFLICT]);
    const last = await order(contract, network.alpha);
    const events = await eventsOf({ startBlock: won.blockNumber });
    const taken = await takeUntil(events, has(last));
    const ids = taken.map((event) => event.transactionId);
    assert.ok(ids.includes(won.transactionId));
    assert.equal(ids.includes(lost.transactionId), false);
    events.close();
  });

  it('are those of one chaincode and one channel', async () => {
    const here = await orderWithStatus(contract, network.alpha);
    const elsewhere = await orderWithStatus(alpha.contract(network.all), network.alpha);
    const events = await eventsOf({ startBlock: 0n });
    const taken = await takeUntil(events, has(here.name));
    assert.equal(taken.some((event) => event.transactionId === elsewhere.transactionId), false);
    events.close();
    // Nobody has such a chaincode; its stream opens, and stays quiet while others' events pass.
    const quiet = await alpha.network(network.pair).getChaincodeEvents('other', { startBlock: 0n });
    const answer = take(quiet, 1).then(() => 'an event', (error) => error.message);
    const name = await order(contract, network.alpha);
    const proof = await eventsOf({ startBlock: here.blockNumber });
    await takeUntil(proof, has(name));
    proof.close();
    quiet.close();
    assert.match(await answer, /cancelled/i);
  });

  it('go on at a checkpoint in memory', async () => {
    const checkpointer = checkpointers.inMemory();
    await resumes(() => checkpointer);
  });

  it('go on at a checkpoint in a file, as a new process finds it', async () => {
    const path = join(network.folder, 'checkpoint.json');
    await resumes(() => checkpointers.file(path));
  });

  /** Takes in some events, ends between two, goes on with what `open` gives, and misses and repeats none. */
  async function resumes(open) {
    const checkpointer = await open();
    const ordered = [];
    for (let count = 0; count < 4; count += 1) {
      ordered.push(await orderWithStatus(contract, network.alpha));
    }
    const expected = ordered.map((one) => one.transactionId);
    const before = await eventsOf({ checkpoint: checkpointer, startBlock: ordered[0].blockNumber });
    const taken = await take(before, 2);
    for (const event of taken) {
      await checkpointer.checkpointChaincodeEvent(event);
    }
    before.close();

    const again = await open();
    assert.equal(again.getTransactionId(), expected[1]);
    const resumed = await eventsOf({ checkpoint: again, startBlock: 0n });
    const rest = await take(resumed, 2);
    resumed.close();
    assert.deepEqual([...taken, ...rest].map((event) => event.transactionId), expected);

    // Whole blocks are marked too: nothing of a block that is done comes again.
    await again.checkpointBlock(rest[1].blockNumber);
    const next = await orderWithStatus(contract, network.alpha);
    const after = await eventsOf({ checkpoint: await open() });
    const [event] = await take(after, 1);
    after.close();
    assert.equal(event.transactionId, next.transactionId);
  }

  it('are asked for with a signature from elsewhere', async () => {
    const { transactionId, blockNumber } = await orderWithStatus(contract, network.alpha);
    const silent = network.as(network.alpha, { signer: null });
    const unsigned = silent.network(network.pair).newChaincodeEventsRequest(network.chaincode, { startBlock: blockNumber });
    const signature = await signerOf(network.alpha.key)(unsigned.getDigest());
    const events = await silent.gateway.newSignedChaincodeEventsRequest(unsigned.getBytes(), signature).getEvents();
    const [event] = await take(events, 1);
    assert.equal(event.transactionId, transactionId);
    events.close();
  });

  it('survive the ledger: killed, started again, and nothing is lost or twice', { skip: notOurs }, async () => {
    const checkpointer = await checkpointers.file(join(network.folder, 'killed.json'));
    const first = await orderWithStatus(contract, network.alpha);
    const events = await eventsOf({ checkpoint: checkpointer, startBlock: first.blockNumber });
    const [event] = await take(events, 1);
    await checkpointer.checkpointChaincodeEvent(event);
    const broken = take(events, 1).then(() => 'an event', (error) => error.code);
    await network.ledger.kill();
    assert.equal(await broken, 14, 'an open stream ends as unavailable');
    await network.ledger.serve();

    const again = network.as(network.alpha);
    const second = await orderWithStatus(again.contract(network.pair), network.alpha);
    assert.equal(second.blockNumber, first.blockNumber + 1n, 'the chain goes on where it was');
    const resumed = await eventsOf({ checkpoint: checkpointer }, again);
    const [next] = await take(resumed, 1);
    assert.equal(next.transactionId, second.transactionId);
    resumed.close();
    // The connection from before finds the ledger again by itself.
    assert.equal((await alpha.commitOf(network.pair, second.transactionId).getStatus()).code, StatusCode.VALID);
  });
});
