// The deliver services without the gateway's client around them: requests of every form, signed as a member.
import { createHash, randomBytes } from 'node:crypto';

import { common, orderer, peer } from '@hyperledger/fabric-protos';
import timestamps from 'google-protobuf/google/protobuf/timestamp_pb.js';

import { signerOf } from './member.js';
import { within } from './streams.js';

export const Behavior = orderer.SeekInfo.SeekBehavior;
export const Content = orderer.SeekInfo.SeekContentType;

/** A position: a number, or one of `oldest`, `newest`, `next`, `nothing`. */
function position(where) {
  const found = new orderer.SeekPosition();
  if (typeof where === 'number') {
    const specified = new orderer.SeekSpecified();
    specified.setNumber(where);
    found.setSpecified(specified);
  } else if (where === 'oldest') {
    found.setOldest(new orderer.SeekOldest());
  } else if (where === 'newest') {
    found.setNewest(new orderer.SeekNewest());
  } else if (where === 'next') {
    found.setNextCommit(new orderer.SeekNextCommit());
  }
  return found;
}

/** Opens a stream of a member's. */
export function deliver(connection, member, method = 'Deliver') {
  const stream = connection.client.makeBidiStreamRequest(
    `/protos.Deliver/${method}`,
    (message) => Buffer.from(message.serializeBinary()),
    (bytes) => peer.DeliverResponse.deserializeBinary(bytes),
  );
  const answers = stream[Symbol.asyncIterator]();
  return {
    /** Asks for blocks of a channel. */
    async seek(channel, { start, stop, behavior, content, secondsAgo = 0 }) {
      const info = new orderer.SeekInfo();
      if (start !== undefined) {
        info.setStart(position(start));
      }
      if (stop !== undefined) {
        info.setStop(position(stop));
      }
      info.setBehavior(behavior ?? Behavior.BLOCK_UNTIL_READY);
      info.setContentType(content ?? Content.BLOCK);
      stream.write(await envelope(connection, member, channel, info, secondsAgo));
    },
    /** The next answer: a block's number, or `status CODE`. */
    async next() {
      const message = await this.message();
      if (message === undefined) {
        return 'end';
      }
      const block = message.getBlock() ?? message.getBlockAndPrivateData()?.getBlock();
      if (block) {
        return block.getHeader().getNumber();
      }
      return message.getFilteredBlock()?.getNumber() ?? `status ${message.getStatus()}`;
    },
    /** The next answer as it is; none when the stream has ended. */
    async message() {
      const { done, value } = await within(answers.next(), () => 'no answer came');
      return done ? undefined : value;
    },
    close() {
      stream.cancel();
    },
  };
}

async function envelope(connection, member, channel, info, secondsAgo) {
  const channelHeader = new common.ChannelHeader();
  channelHeader.setType(common.HeaderType.DELIVER_SEEK_INFO);
  channelHeader.setChannelId(channel);
  channelHeader.setTimestamp(timestamps.Timestamp.fromDate(new Date(Date.now() - secondsAgo * 1000)));
  const signatureHeader = new common.SignatureHeader();
  signatureHeader.setCreator(connection.creator);
  signatureHeader.setNonce(randomBytes(24));
  const header = new common.Header();
  header.setChannelHeader(channelHeader.serializeBinary());
  header.setSignatureHeader(signatureHeader.serializeBinary());
  const payload = new common.Payload();
  payload.setHeader(header);
  payload.setData(info.serializeBinary());
  const signed = new common.Envelope();
  signed.setPayload(payload.serializeBinary());
  const digest = createHash('sha256').update(signed.getPayload_asU8()).digest();
  signed.setSignature(await signerOf(member.key)(digest));
  return signed;
}
