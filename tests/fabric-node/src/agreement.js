// What the members of a new channel have to say before anything can be ordered there.
import { read } from './orders.js';

const NOT_THERE = /chaincode response 404/;
/** What a gateway says while its peer has not heard of the others of a new channel. */
const NOT_YET = /no combination of peers can be derived/;
const WITHIN = 30_000;

/** Has the members register and agree, unless they have. The first one brings the data. */
export async function agree(network, channel, members, version) {
  const contracts = members.map((member) => network.as(member).contract(channel));
  try {
    await read(contracts[0], 'agreement');
    return;
  } catch (error) {
    if (!NOT_THERE.test(error.message)) {
      throw error;
    }
  }
  const parties = members.map(({ name, mspId }, index) =>
    index === 0
      ? { member: name, msp: mspId, role: 'data-service-provider' }
      : { member: name, msp: mspId, role: 'value-service-provider', beta: `0.${8 - index}0` },
  );
  for (const [index, { member, role }] of parties.entries()) {
    await submit(contracts[index], 'register', JSON.stringify({ member, role }));
  }
  const agreement = {
    dao: 'conformance',
    version,
    parties,
    effective: { from: '2026-01-01T00:00:00Z' },
    heartbeat_seconds: 86400,
    limits: { resources: 1000 },
  };
  const constituted = await submit(contracts[0], 'constitute', JSON.stringify(agreement));
  const { digest } = JSON.parse(new TextDecoder().decode(constituted));
  for (const contract of contracts.slice(1)) {
    await submit(contract, 'accept', JSON.stringify({ digest }));
  }
}

async function submit(contract, ...words) {
  const until = Date.now() + WITHIN;
  for (;;) {
    try {
      return await contract.submitTransaction(...words);
    } catch (error) {
      if (!NOT_YET.test(error.message) || Date.now() > until) {
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}
