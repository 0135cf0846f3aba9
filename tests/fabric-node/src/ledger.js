// The embedded ledger as its users start it: the binary, in a temporary folder, on a free port.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const EXAMPLE = fileURLToPath(new URL('../network', import.meta.url));
const LISTENS_WITHIN = 30_000;

export class EmbeddedLedger {
  #binary;
  #folder;
  #process;
  #port = 0;

  /** Makes the ledger of the folder `network/`, with what its members have said, and serves it. */
  static async start() {
    const ledger = new EmbeddedLedger();
    try {
      ledger.#run('up', '--once', EXAMPLE);
      await ledger.serve();
    } catch (error) {
      await ledger.remove();
      throw error;
    }
    return ledger;
  }

  constructor() {
    const named = process.env.CHARTER;
    if (!named) {
      throw new Error('CHARTER names no binary: run tests/run fabric-node, which builds it');
    }
    this.#binary = realpathSync(named);
    this.#folder = realpathSync(mkdtempSync(join(tmpdir(), 'charter-node-')));
  }

  /** Serves the ledger: the first time on any free port, from then on on that one. */
  async serve() {
    const words = ['--data-dir', this.data, 'ledger', 'serve', '--listen', `127.0.0.1:${this.#port}`];
    const ledger = spawn(this.#binary, words, { env: this.#environment(), stdio: ['ignore', 'pipe', 'pipe'] });
    this.#process = ledger;
    let said = '';
    ledger.stderr.on('data', (text) => (said += text));
    const listening = new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`the ledger doesn't listen: ${said}`)), LISTENS_WITHIN);
      createInterface(ledger.stdout).on('line', (line) => {
        const address = /^listening on https:\/\/127\.0\.0\.1:(\d+)$/.exec(line);
        if (address) {
          clearTimeout(late);
          resolve(Number(address[1]));
        }
      });
      ledger.once('exit', (code) => {
        clearTimeout(late);
        reject(new Error(`the ledger ended with ${code}: ${said}`));
      });
    });
    this.#port = await listening;
  }

  /** Kills the ledger as a power failure would. */
  async kill() {
    const ended = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await ended;
  }

  /** Stops the ledger and deletes its folder. */
  async remove() {
    if (this.#process && this.#process.exitCode === null && this.#process.signalCode === null) {
      await this.kill();
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  get data() {
    return join(this.#folder, 'data');
  }

  /** Where files may be made that go with the ledger. */
  get folder() {
    return this.#folder;
  }

  get endpoint() {
    return `127.0.0.1:${this.#port}`;
  }

  /** What the engineer of a member is given: a certificate, its key, and whom to believe. */
  member(name, mspId) {
    const identity = join(this.data, 'members', name, 'identity');
    const authority = join(this.data, 'ledger/organisations', name, 'ca');
    return {
      name,
      mspId,
      endpoint: () => this.endpoint,
      serverName: 'localhost',
      tlsCa: readFileSync(join(identity, 'tls-ca.pem')),
      certificate: readFileSync(join(identity, 'msp/signcerts/cert.pem')),
      key: readFileSync(join(identity, 'msp/keystore/priv_sk')),
      authority: { certificate: join(authority, 'ca.pem'), key: join(authority, 'ca.key') },
    };
  }

  #run(...words) {
    const ran = spawnSync(this.#binary, ['--data-dir', this.data, ...words], { env: this.#environment(), encoding: 'utf8' });
    if (ran.error || ran.status !== 0) {
      throw new Error(`charter ${words.join(' ')}: ${ran.error ?? ran.stderr}`);
    }
  }

  #environment() {
    return { PATH: process.env.PATH, HOME: this.#folder, LC_ALL: 'C.UTF-8', NO_COLOR: '1' };
  }
}
