// Reading streams that never end by themselves.
const WITHIN = 20_000;

/** Takes from a stream until `enough` says so of what was taken, and gives all of it. The stream stays open. */
export async function takeUntil(stream, enough) {
  const iterator = stream[Symbol.asyncIterator]();
  const taken = [];
  while (!enough(taken)) {
    const { done, value } = await within(iterator.next(), () => `only ${taken.length} came`);
    if (done) {
      throw new Error(`the stream ended after ${taken.length}`);
    }
    taken.push(value);
  }
  return taken;
}

/** Takes a number of them. */
export function take(stream, count) {
  return takeUntil(stream, (taken) => taken.length >= count);
}

/** The error that a stream's first answer is. */
export async function refusalOf(stream) {
  try {
    const answer = await within(stream[Symbol.asyncIterator]().next(), () => 'nothing came');
    return new Error(`no refusal but ${JSON.stringify(answer)}`);
  } catch (error) {
    return error;
  } finally {
    stream.close();
  }
}

/** Waits for a promise, not for ever. */
export async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`within ${WITHIN / 1000} s ${what()}`)), WITHIN);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
