// Requests that no client of Fabric's makes: each is refused, by the code and the words of a peer's gateway.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { common, gateway as messages, orderer, peer } from '@hyperledger/fabric-protos';

import { beforeFabric3, openNetwork } from '../src/network.js';
import { file, freshName } from '../src/orders.js';
import { within } from '../src/streams.js';

const GRPC = { INVALID_ARGUMENT: 3, PERMISSION_DENIED: 7, FAILED_PRECONDITION: 9, ABORTED: 10 };

describe('requests that are not whole', () => {
  let network;
  let alpha;
  before(async () => {
    network = await openNetwork();
    alpha = network.as(network.alpha);
  });
  after(() => network?.close());

  /** Calls one of the gateway's functions, and gives the error that it answers. */
  async function refusal(name, message, Response) {
    const call = new Promise((resolve) => {
      alpha.client.makeUnaryRequest(
        `/gateway.Gateway/${name}`,
        (request) => Buffer.from(request.serializeBinary()),
        (bytes) => Response.deserializeBinary(bytes),
        message,
        (error, response) => resolve(error ?? { code: 0, details: JSON.stringify(response.toObject()) }),
      );
    });
    const { code, details } = await within(call, () => 'no answer came');
    return [code, details];
  }

  const evaluate = (message) => refusal('Evaluate', message, messages.EvaluateResponse);
  const endorse = (message) => refusal('Endorse', message, messages.EndorseResponse);
  const submit = (message) => refusal('Submit', message, messages.SubmitResponse);
  const status = (message) => refusal('CommitStatus', message, messages.CommitStatusResponse);

  const prepared = () => alpha.contract(network.pair).newProposal('order', { arguments: [file(network.alpha, freshName())] });

  /** A proposal in which something was changed before it was signed. */
  function changed(change) {
    const proposed = messages.ProposedTransaction.deserializeBinary(prepared().getBytes());
    const proposal = peer.Proposal.deserializeBinary(proposed.getProposal().getProposalBytes_asU8());
    const header = common.Header.deserializeBinary(proposal.getHeader_asU8());
    const parts = {
      channel: common.ChannelHeader.deserializeBinary(header.getChannelHeader_asU8()),
      signature: common.SignatureHeader.deserializeBinary(header.getSignatureHeader_asU8()),
    };
    change(parts);
    header.setChannelHeader(parts.channel.serializeBinary());
    header.setSignatureHeader(parts.signature.serializeBinary());
    proposal.setHeader(header.serializeBinary());
    proposed.getProposal().setProposalBytes(proposal.serializeBinary());
    return alpha.gateway.newProposal(proposed.serializeBinary());
  }

  it('have no proposal', async () => {
    assert.deepEqual(await evaluate(new messages.EvaluateRequest()), [
      GRPC.INVALID_ARGUMENT,
      'failed to unpack transaction proposal: a signed proposal is required',
    ]);
    assert.deepEqual(await endorse(new messages.EndorseRequest()), [
      GRPC.INVALID_ARGUMENT,
      'the proposed transaction must contain a signed proposal',
    ]);
  });

  it('have no transaction, or none that is signed', async () => {
    const request = new messages.SubmitRequest();
    request.setChannelId(network.pair);
    assert.deepEqual(await submit(request), [GRPC.INVALID_ARGUMENT, 'a prepared transaction is required']);
    const transaction = await prepared().endorse();
    request.setPreparedTransaction(messages.PreparedTransaction.deserializeBinary(transaction.getBytes()).getEnvelope());
    assert.deepEqual(await submit(request), [GRPC.INVALID_ARGUMENT, 'prepared transaction must be signed']);
  });

  it('ask for no status', async () => {
    const asking = (change) => {
      const question = new messages.CommitStatusRequest();
      question.setChannelId(network.pair);
      question.setTransactionId('abc');
      question.setIdentity(alpha.creator);
      change(question);
      const request = new messages.SignedCommitStatusRequest();
      request.setRequest(question.serializeBinary());
      return status(request);
    };
    assert.deepEqual(await status(new messages.SignedCommitStatusRequest()), [
      GRPC.INVALID_ARGUMENT,
      'a commit status request is required',
    ]);
    if (!beforeFabric3) {
      assert.deepEqual(await asking((question) => question.setChannelId('')), [GRPC.INVALID_ARGUMENT, 'no channel ID provided']);
      assert.deepEqual(await asking((question) => question.setTransactionId('')), [
        GRPC.INVALID_ARGUMENT,
        'transaction ID should not be empty',
      ]);
    }
    // Nobody has signed this one.
    assert.equal((await asking(() => {}))[0], GRPC.PERMISSION_DENIED);
  });

  it('ask for no events, or for some from where events don\'t begin', async () => {
    const events = async (message) => {
      const stream = alpha.client.makeServerStreamRequest(
        '/gateway.Gateway/ChaincodeEvents',
        (request) => Buffer.from(request.serializeBinary()),
        (bytes) => messages.ChaincodeEventsResponse.deserializeBinary(bytes),
        message,
      );
      const error = await within(new Promise((resolve) => stream.on('error', resolve)), () => 'nothing was refused');
      return [error.code, error.details];
    };
    assert.deepEqual(await events(new messages.SignedChaincodeEventsRequest()), [
      GRPC.INVALID_ARGUMENT,
      'a chaincode events request is required',
    ]);
    const unsigned = alpha.network(network.pair).newChaincodeEventsRequest(network.chaincode);
    const request = messages.SignedChaincodeEventsRequest.deserializeBinary(unsigned.getBytes());
    const question = messages.ChaincodeEventsRequest.deserializeBinary(request.getRequest_asU8());
    const oldest = new orderer.SeekPosition();
    oldest.setOldest(new orderer.SeekOldest());
    question.setStartPosition(oldest);
    request.setRequest(question.serializeBinary());
    const stream = await alpha.gateway.newChaincodeEventsRequest(request.serializeBinary()).getEvents();
    await assert.rejects(within(stream[Symbol.asyncIterator]().next(), () => 'nothing was refused'), (error) => {
      assert.equal(error.code, GRPC.INVALID_ARGUMENT);
      assert.match(error.message, /invalid start position type/);
      return true;
    });
  });

  it('have headers that don\'t fit', async () => {
    const faults = [
      [({ channel }) => channel.setTxId('f'.repeat(64)), /^error validating proposal: incorrectly computed txid 'f{64}' -- expected '[0-9a-f]{64}'$/],
      [({ channel }) => channel.setEpoch(7), /^error validating proposal: epoch is non-zero$/],
      [({ signature }) => signature.setNonce(''), /^error validating proposal: nonce is empty$/],
      [({ channel }) => channel.setType(common.HeaderType.MESSAGE), /^error validating proposal: invalid header type MESSAGE$/],
    ];
    for (const [fault, words] of faults) {
      await assert.rejects(changed(fault).evaluate(), (error) => {
        assert.equal(error.code, GRPC.FAILED_PRECONDITION, error.message);
        assert.match(error.details[0].message, words);
        return true;
      });
      await assert.rejects(changed(fault).endorse(), (error) => {
        assert.equal(error.code, GRPC.ABORTED, error.message);
        assert.match(error.details[0].message, words);
        return true;
      });
    }
    await assert.rejects(changed(({ channel }) => channel.setChannelId('')).evaluate(), (error) => {
      assert.equal(error.code, GRPC.INVALID_ARGUMENT);
      assert.match(error.message, /failed to unpack transaction proposal: no channel id provided/);
      return true;
    });
  });
});
