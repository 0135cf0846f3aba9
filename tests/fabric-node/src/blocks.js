// What Fabric's own messages say of blocks, and the hashes that chain them.
import { createHash } from 'node:crypto';

import { common, peer } from '@hyperledger/fabric-protos';

/** The hash of a block's header: SHA-256 over the DER sequence of number, previous hash and data hash. */
export function headerHash(block) {
  const header = block.getHeader();
  const parts = [
    integer(BigInt(header.getNumber())),
    tagged(0x04, header.getPreviousHash_asU8()),
    tagged(0x04, header.getDataHash_asU8()),
  ];
  return sha256(tagged(0x30, Buffer.concat(parts)));
}

/** The hash that a block's header has to have of its data. */
export function dataHash(block) {
  return sha256(Buffer.concat(block.getData().getDataList_asU8()));
}

/** The validation codes of a block's transactions. */
export function codes(block) {
  return [...block.getMetadata().getMetadataList_asU8()[common.BlockMetadataIndex.TRANSACTIONS_FILTER]];
}

/** The channel headers of a block's transactions, in its order. */
export function channelHeaders(block) {
  return block.getData().getDataList_asU8().map((bytes) => channelHeaderOf(common.Envelope.deserializeBinary(bytes)));
}

/** The channel header of an envelope. */
export function channelHeaderOf(envelope) {
  const payload = common.Payload.deserializeBinary(envelope.getPayload_asU8());
  return common.ChannelHeader.deserializeBinary(payload.getHeader().getChannelHeader_asU8());
}

/** Whether an action's payload of a transaction holds text anywhere. */
export function holds(message, text) {
  return Buffer.from(message.serializeBinary()).includes(text);
}

/** Who endorsed the one action of a transaction's envelope: MSP ids, sorted. */
export function endorsersOf(envelope, SerializedIdentity) {
  const payload = common.Payload.deserializeBinary(envelope.getPayload_asU8());
  const transaction = peer.Transaction.deserializeBinary(payload.getData_asU8());
  const [action] = transaction.getActionsList();
  const endorsed = peer.ChaincodeActionPayload.deserializeBinary(action.getPayload_asU8()).getAction();
  const names = endorsed.getEndorsementsList().map((endorsement) => SerializedIdentity.deserializeBinary(endorsement.getEndorser_asU8()).getMspid());
  return names.sort();
}

function integer(number) {
  let hexadecimal = number.toString(16);
  if (hexadecimal.length % 2) {
    hexadecimal = `0${hexadecimal}`;
  }
  const bytes = Buffer.from(hexadecimal, 'hex');
  return tagged(0x02, bytes[0] & 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes);
}

function tagged(tag, content) {
  if (content.length > 127) {
    throw new Error('a header is never that long');
  }
  return Buffer.concat([Buffer.of(tag, content.length), content]);
}

function sha256(bytes) {
  return createHash('sha256').update(bytes).digest();
}
