// Evaluating, endorsing, submitting, and what became of a transaction.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { CommitError, CommitStatusError, EndorseError, StatusCode } from '@hyperledger/fabric-gateway';
import { gateway as gatewayMessages, msp, peer } from '@hyperledger/fabric-protos';

import { channelHeaders, codes, endorsersOf, holds } from '../src/blocks.js';
import { signerOf } from '../src/member.js';
import { openNetwork } from '../src/network.js';
import { contentOf, file, freshName, order, read } from '../src/orders.js';
import { takeUntil } from '../src/streams.js';

const GRPC = { DEADLINE_EXCEEDED: 4, ABORTED: 10 };

describe('transactions', () => {
  let network;
  let alpha;
  let beta;
  before(async () => {
    network = await openNetwork();
    alpha = network.as(network.alpha);
    beta = network.as(network.beta);
  });
  after(() => network?.close());

  it('are evaluated without a trace', async () => {
    const contract = alpha.contract(network.pair);
    const agreement = await read(contract, 'agreement');
    assert.deepEqual(agreement.agreement.parties.map((party) => party.msp), [network.alpha.mspId, network.beta.mspId]);
    // An order that is only evaluated answers what it would do, and does nothing.
    const name = freshName();
    await contract.evaluateTransaction('order', file(network.alpha, name));
    await assert.rejects(contract.evaluateTransaction('resource', name), /was never ordered/);
  });

  it('are submitted, and everybody reads what they did', async () => {
    const contract = alpha.contract(network.pair);
    const name = freshName();
    const result = await contract.submitTransaction('order', file(network.alpha, name, 'by alpha\n'));
    assert.deepEqual(JSON.parse(new TextDecoder().decode(result)), { resources: 1 }, 'the result is the chaincode\'s');
    assert.equal(await contentOf(beta.contract(network.pair), name), 'by alpha\n');
  });

  it('have a result before they are committed, and a status after', async () => {
    const contract = alpha.contract(network.pair);
    const commit = await contract.submitAsync('order', { arguments: [file(network.alpha, freshName())] });
    assert.deepEqual(JSON.parse(new TextDecoder().decode(commit.getResult())), { resources: 1 });
    const status = await commit.getStatus();
    assert.equal(status.successful, true);
    assert.equal(status.code, StatusCode.VALID);
    assert.equal(status.transactionId, commit.getTransactionId());
    assert.equal(typeof status.blockNumber, 'bigint');
    // Anybody of the channel may ask, however late.
    assert.deepEqual(await beta.commitOf(network.pair, status.transactionId).getStatus(), status);
  });

  it('are endorsed by as many members as the policy needs, or by those that are asked', async () => {
    const contract = alpha.contract(network.all);
    const endorse = async (options) => {
      const proposal = contract.newProposal('order', { arguments: [file(network.alpha, freshName())], ...options });
      const transaction = await proposal.endorse();
      const message = gatewayMessages.PreparedTransaction.deserializeBinary(transaction.getBytes());
      return endorsersOf(message.getEnvelope(), msp.SerializedIdentity);
    };
    const some = await endorse({});
    assert.equal(some.length, 2);
    assert.ok(some.includes(network.alpha.mspId), 'one\'s own peer is asked first');
    const asked = [network.gamma.mspId, network.beta.mspId];
    assert.deepEqual(await endorse({ endorsingOrganizations: asked }), asked.sort());
  });

  it('with too few endorsements are committed as invalid', async () => {
    const contract = alpha.contract(network.all);
    const proposal = contract.newProposal('order', {
      arguments: [file(network.alpha, freshName())],
      endorsingOrganizations: [network.alpha.mspId],
    });
    const commit = await (await proposal.endorse()).submit();
    const status = await commit.getStatus();
    assert.equal(status.successful, false);
    assert.equal(status.code, StatusCode.ENDORSEMENT_POLICY_FAILURE);
  });

  it('never show what was only said to the endorsers', async () => {
    const contract = alpha.contract(network.pair);
    const commit = await contract.submitAsync('order', {
      arguments: [file(network.alpha, freshName())],
      transientData: { password: Buffer.from('never on the ledger') },
    });
    const { transactionId } = await commit.getStatus();
    const query = alpha.contract(network.pair, 'qscc');
    const bytes = await query.evaluateTransaction('GetTransactionByID', network.pair, transactionId);
    const processed = peer.ProcessedTransaction.deserializeBinary(bytes);
    assert.equal(processed.getValidationcode(), StatusCode.VALID);
    assert.equal(holds(processed, 'never on the ledger'), false);
  });

  it('are signed elsewhere, step by step', async () => {
    // This connection has no key at all; the signatures come from outside, as from a vault.
    const { gateway, contract } = network.as(network.alpha, { signer: null });
    const signature = signerOf(network.alpha.key);
    const unsigned = contract(network.pair).newProposal('order', { arguments: [file(network.alpha, freshName())] });
    await assert.rejects(unsigned.endorse(), /sign/i);

    const proposal = gateway.newSignedProposal(unsigned.getBytes(), await signature(unsigned.getDigest()));
    assert.equal(proposal.getTransactionId(), unsigned.getTransactionId());
    const endorsed = await proposal.endorse();
    const transaction = gateway.newSignedTransaction(endorsed.getBytes(), await signature(endorsed.getDigest()));
    const submitted = await transaction.submit();
    const commit = gateway.newSignedCommit(submitted.getBytes(), await signature(submitted.getDigest()));
    const status = await commit.getStatus();
    assert.equal(status.code, StatusCode.VALID);
    assert.equal(status.transactionId, unsigned.getTransactionId());

    const question = contract(network.pair).newProposal('agreement');
    const signed = gateway.newSignedProposal(question.getBytes(), await signature(question.getDigest()));
    assert.ok(Buffer.from(await signed.evaluate()).includes(network.beta.mspId));
  });

  it('that read what another one has just changed are refused at the commit', async () => {
    const contract = alpha.contract(network.pair);
    const name = await order(contract, network.alpha);
    const amend = async (content) => contract.newProposal('amend', { arguments: [file(network.alpha, name, content)] }).endorse();
    // Both saw the same version.
    const [first, second] = [await amend('first\n'), await amend('second\n')];
    assert.equal((await (await first.submit()).getStatus()).code, StatusCode.VALID);
    const status = await (await second.submit()).getStatus();
    assert.equal(status.successful, false);
    assert.equal(status.code, StatusCode.MVCC_READ_CONFLICT);
    assert.equal(await contentOf(contract, name), 'first\n');
  });

  it('that fail at the commit are an error of their own to who waits for them', async () => {
    const contract = alpha.contract(network.all);
    const submitting = contract.submit('order', {
      arguments: [file(network.alpha, freshName())],
      endorsingOrganizations: [network.beta.mspId],
    });
    await assert.rejects(submitting, (error) => {
      assert.ok(error instanceof CommitError);
      assert.equal(error.code, StatusCode.ENDORSEMENT_POLICY_FAILURE);
      assert.match(error.transactionId, /^[0-9a-f]{64}$/);
      return true;
    });
  });

  it('count once, however often they are sent', async () => {
    const contract = alpha.contract(network.pair);
    const proposal = contract.newProposal('order', { arguments: [file(network.alpha, freshName())] });
    const transaction = await proposal.endorse();
    const blocks = await alpha.network(network.pair).getBlockEvents();
    try {
      const first = await (await transaction.submit()).getStatus();
      assert.equal(first.code, StatusCode.VALID);
      // The same envelope once more: it is taken, and its status stays what it was.
      const again = await (await transaction.submit()).getStatus();
      assert.deepEqual(again, first);

      // Both stand in the chain, the second as a duplicate.
      const standing = (taken) =>
        taken.flatMap((block) =>
          channelHeaders(block).flatMap((header, index) => (header.getTxId() === first.transactionId ? [codes(block)[index]] : [])),
        );
      const taken = await takeUntil(blocks, (all) => standing(all).length === 2);
      assert.deepEqual(standing(taken), [StatusCode.VALID, StatusCode.DUPLICATE_TXID]);
    } finally {
      blocks.close();
    }

    // A proposal whose transaction is committed is endorsed no more.
    await assert.rejects(proposal.endorse(), (error) => {
      assert.ok(error instanceof EndorseError);
      assert.equal(error.code, GRPC.ABORTED);
      assert.match(error.details[0].message, new RegExp(`^duplicate transaction found \\[${proposal.getTransactionId()}\\]\\. Creator \\[[0-9a-f]+\\]$`));
      return true;
    });
  });

  it('that nobody has sent have no status: who asks waits as long as he likes', async () => {
    const transaction = await alpha.contract(network.pair).newProposal('order', { arguments: [file(network.alpha, freshName())] }).endorse();
    const commit = alpha.commitOf(network.pair, transaction.getTransactionId());
    await assert.rejects(commit.getStatus({ deadline: Date.now() + 300 }), (error) => {
      assert.ok(error instanceof CommitStatusError);
      assert.equal(error.code, GRPC.DEADLINE_EXCEEDED);
      return true;
    });
  });
});
