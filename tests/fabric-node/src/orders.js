// What the tests have the chaincode do: order small files, and read what was ordered.
const utf8 = new TextDecoder();
let counted = 0;

/** A resource's name that no other test uses. */
export function freshName() {
  counted += 1;
  return `file-${process.pid}-${counted}-${Date.now().toString(36)}`;
}

/** The argument of `order` and `amend`: one file of a member. */
export function file(owner, name, content = `${name}\n`) {
  return JSON.stringify({ resources: [{ name, kind: 'machine/file', owner: owner.name, spec: { content } }] });
}

/** Orders a fresh file and gives its name. */
export async function order(contract, owner) {
  const name = freshName();
  await contract.submitTransaction('order', file(owner, name));
  return name;
}

/** Orders a fresh file; gives its name, its transaction's id, and the block. */
export async function orderWithStatus(contract, owner) {
  const name = freshName();
  const commit = await contract.submitAsync('order', { arguments: [file(owner, name)] });
  const status = await commit.getStatus();
  if (!status.successful) {
    throw new Error(`the order was committed as ${status.code}`);
  }
  return { name, transactionId: status.transactionId, blockNumber: status.blockNumber };
}

/** What the chaincode answers, read as JSON. */
export async function read(contract, name, ...args) {
  return JSON.parse(utf8.decode(await contract.evaluateTransaction(name, ...args)));
}

/** The content of a file as it is ordered. */
export async function contentOf(contract, name) {
  return (await read(contract, 'resource', name)).resource.spec.content;
}

/** The names of the resources that an event of the chaincode speaks of. */
export function namesIn(event) {
  const document = JSON.parse(utf8.decode(event.payload));
  return JSON.stringify(document).match(/file-\d+-\d+-[0-9a-z]+/g) ?? [];
}
