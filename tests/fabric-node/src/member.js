// A member's connection, made of nothing but what Fabric's own client offers.
import { createPrivateKey } from 'node:crypto';

import * as grpc from '@grpc/grpc-js';
import { connect as connectGateway, hash, signers } from '@hyperledger/fabric-gateway';
import { common, gateway as gatewayMessages, msp, peer } from '@hyperledger/fabric-protos';

const WITHIN = 20_000;

/**
 * Connects a member to its peer.
 *
 * @param member whom to connect as: MSP, certificate and key
 * @param chaincode the chaincode's name
 * @param options what differs: `signer` (null: none), `key`, `certificate`, `mspId`
 */
export function connect(member, chaincode, options = {}) {
  const as = { ...member, ...options };
  const settings = as.serverName ? { 'grpc.ssl_target_name_override': as.serverName } : {};
  const client = new grpc.Client(as.endpoint(), grpc.credentials.createSsl(as.tlsCa), settings);
  const streams = watched(client);
  const within = () => ({ deadline: Date.now() + WITHIN });
  const gateway = connectGateway({
    client,
    identity: { mspId: as.mspId, credentials: as.certificate },
    signer: options.signer === undefined ? signerOf(as.key) : (options.signer ?? undefined),
    hash: hash.sha256,
    evaluateOptions: within,
    endorseOptions: within,
    submitOptions: within,
    commitStatusOptions: within,
  });
  const identity = new msp.SerializedIdentity();
  identity.setMspid(as.mspId);
  identity.setIdBytes(as.certificate);
  const creator = identity.serializeBinary();
  return {
    gateway,
    client,
    creator,
    network: (channel) => gateway.getNetwork(channel),
    contract: (channel, name = chaincode) => gateway.getNetwork(channel).getContract(name),
    /** Asks for the status of any transaction, not only of one that this connection has submitted. */
    commitOf(channel, transactionId) {
      const question = new gatewayMessages.CommitStatusRequest();
      question.setChannelId(channel);
      question.setTransactionId(transactionId);
      question.setIdentity(creator);
      const request = new gatewayMessages.SignedCommitStatusRequest();
      request.setRequest(question.serializeBinary());
      return gateway.newCommit(request.serializeBinary());
    },
    /** The same proposal, as a client makes it whose clock is so many seconds behind. */
    proposedAgo(proposal, seconds) {
      const proposed = gatewayMessages.ProposedTransaction.deserializeBinary(proposal.getBytes());
      const message = peer.Proposal.deserializeBinary(proposed.getProposal().getProposalBytes_asU8());
      const header = common.Header.deserializeBinary(message.getHeader_asU8());
      const channelHeader = common.ChannelHeader.deserializeBinary(header.getChannelHeader_asU8());
      channelHeader.getTimestamp().setSeconds(channelHeader.getTimestamp().getSeconds() - seconds);
      header.setChannelHeader(channelHeader.serializeBinary());
      message.setHeader(header.serializeBinary());
      proposed.getProposal().setProposalBytes(message.serializeBinary());
      return gateway.newProposal(proposed.serializeBinary());
    },
    /** Puts this connection's identity into a transaction that somebody else has had endorsed, signs it and submits it. */
    async submitInOwnName(endorsed) {
      const prepared = gatewayMessages.PreparedTransaction.deserializeBinary(endorsed.getBytes());
      const envelope = prepared.getEnvelope();
      const payload = common.Payload.deserializeBinary(envelope.getPayload_asU8());
      const header = common.SignatureHeader.deserializeBinary(payload.getHeader().getSignatureHeader_asU8());
      header.setCreator(creator);
      payload.getHeader().setSignatureHeader(header.serializeBinary());
      envelope.setPayload(payload.serializeBinary());
      return gateway.newTransaction(prepared.serializeBinary()).submit();
    },
    close() {
      // A stream that a failed test has left open would keep its process alive for ever.
      for (const stream of streams) {
        stream.cancel();
      }
      gateway.close();
      client.close();
    },
  };
}

/** The streams that are opened through a client from now on. */
function watched(client) {
  const streams = [];
  for (const name of ['makeServerStreamRequest', 'makeBidiStreamRequest']) {
    const open = client[name].bind(client);
    client[name] = (...words) => {
      const stream = open(...words);
      // Cancelling is an error to whoever reads it, and to nobody else.
      stream.on('error', () => {});
      streams.push(stream);
      return stream;
    };
  }
  return streams;
}

/** Signs digests with a key in PEM. */
export function signerOf(key) {
  return signers.newPrivateKeySigner(createPrivateKey(key));
}
