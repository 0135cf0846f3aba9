// Certificates that no honest member has, made with openssl.
import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Whether openssl is there. */
export const hasOpenssl = spawnSync('openssl', ['version']).status === 0;

const CONFIGURATION = `
[ca]
default_ca = default
[default]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
organizationalUnitName = supplied
[client]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
authorityKeyIdentifier = keyid
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[req]
distinguished_name = name
[name]
`;

/** A client's certificate from an authority, with its key: valid for the authority's first two seconds only. */
export function expiredClient(folder, authority) {
  const from = new X509Certificate(readFileSync(authority.certificate)).validFrom;
  return client(folder, authority, new Date(Date.parse(from) + 1000), new Date(Date.parse(from) + 2000));
}

/** A client's certificate from an authority that nobody knows. */
export function foreignClient(folder) {
  const work = prepared(folder);
  key(work, 'ca.key');
  openssl(work, 'req', '-new', '-x509', '-key', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=nobody', '-extensions', 'authority', '-config', 'openssl.cnf');
  const authority = { certificate: join(work, 'ca.pem'), key: join(work, 'ca.key') };
  return client(folder, authority, new Date(Date.now() - 60_000), new Date(Date.now() + 3_600_000));
}

function client(folder, authority, from, to) {
  const work = prepared(folder);
  key(work, 'client.key');
  openssl(work, 'req', '-new', '-key', 'client.key', '-subj', '/OU=client/CN=client', '-out', 'client.csr', '-config', 'openssl.cnf');
  openssl(
    work, 'ca', '-batch', '-notext', '-config', 'openssl.cnf', '-extensions', 'client', '-in', 'client.csr', '-out', 'client.pem',
    '-cert', authority.certificate, '-keyfile', authority.key, '-startdate', stamp(from), '-enddate', stamp(to),
  );
  return { certificate: readFileSync(join(work, 'client.pem')), key: readFileSync(join(work, 'client.key')) };
}

function prepared(folder) {
  const work = mkdtempSync(join(folder, 'openssl-'));
  writeFileSync(join(work, 'openssl.cnf'), CONFIGURATION);
  writeFileSync(join(work, 'index.txt'), '');
  writeFileSync(join(work, 'serial'), '1000\n');
  return work;
}

function key(work, name) {
  openssl(work, 'genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', name);
}

function stamp(date) {
  return `${date.toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`;
}

function openssl(work, ...words) {
  const ran = spawnSync('openssl', words, { cwd: work, encoding: 'utf8' });
  if (ran.status !== 0) {
    throw new Error(`openssl ${words.join(' ')}: ${ran.stderr}`);
  }
}
