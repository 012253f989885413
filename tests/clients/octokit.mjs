// Signs and verifies with npm's @octokit/webhooks-methods. Each line on standard input is a JSON
// object, {secret, body} or {secret, body, signature}; the answer to it, a signature or a truth,
// is a line of JSON on standard output.

import readline from 'node:readline';
import { sign, verify } from '@octokit/webhooks-methods';

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { secret, body, signature } = JSON.parse(line);
  const answer = signature ? await verify(secret, body, signature) : await sign(secret, body);
  process.stdout.write(JSON.stringify(answer) + '\n');
}
