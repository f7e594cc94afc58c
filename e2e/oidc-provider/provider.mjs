// A real OpenID provider for the end-to-end tests: oidc-provider, with a handful of people and two clients of the bridge.
//
//   node provider.mjs --bridge URL [--port N] [--ahead SECONDS]
//
// URL is the bridge's public_url; the clients' redirect and logout addresses are below it. The provider's clock is ahead of the machine's, or,
// with a negative number, behind. Listens on loopback, prints one line of JSON with its issuer on stdout once it answers, and exits when its
// stdin closes, so that it never outlives its parent.
//
// PUT /people/NAME with a JSON object changes somebody's claims, DELETE removes them: what an administrator does. Refresh tokens are used once.
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import Provider from 'oidc-provider';

const { values: flags } = parseArgs({
  options: { bridge: { type: 'string' }, port: { type: 'string', default: '0' }, ahead: { type: 'string', default: '0' } },
});

const clock = Date.now;
Date.now = () => clock() + 1000 * flags.ahead; // where oidc-provider takes the time from

// Everybody's password is their name followed by "-password". A claim that is not here is not sent.
const people = {
  ada: { email: 'ada@example.com', email_verified: true, name: 'Ada Admin', groups: ['staff', 'admins'] },
  carl: { email: 'carl@example.com', email_verified: true, name: 'Carl Customer', groups: ['customers'] },
  cora: { email: 'cora@example.com', email_verified: true, name: 'Cora Customer', groups: ['customers'] },
  uma: { email: 'uma@example.com', email_verified: false, name: 'Uma Unverified', groups: ['customers'] },
  rob: { email: 'rob@example.com', email_verified: true, name: 'Rob Roleless' },
};

// One connection of the bridge per way of client authentication; the connection's name is the end of the client's id.
const client = (connection, authMethod) => ({
  client_id: `bridge-${connection}`,
  client_secret: `${connection}-client-secret-of-the-end-to-end-tests`,
  token_endpoint_auth_method: authMethod,
  grant_types: ['authorization_code', 'refresh_token'],
  redirect_uris: [`${flags.bridge}/callback/${connection}`],
  post_logout_redirect_uris: [`${flags.bridge}/logged-out`],
  backchannel_logout_uri: `${flags.bridge}/backchannel-logout/${connection}`,
  backchannel_logout_session_required: true,
});

const escape = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

const page = (title, body) => `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>${escape(title)}</title></head>
<body><h1>${escape(title)}</h1>${body}</body></html>`;

// signingKey makes a new key. By way of PEM: Node 20 may hang for ever when a generated key is exported as JWK while the garbage collector
// runs, since both take the lock of the same key (KeyGenJob's destructor inside ExportJWK).
function signingKey() {
  const { privateKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048, publicKeyEncoding: { type: 'spki', format: 'pem' }, privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  return { ...createPrivateKey(privateKey).export({ format: 'jwk' }), alg: 'RS256', use: 'sig' };
}

const configuration = {
  clients: [client('basic', 'client_secret_basic'), client('post', 'client_secret_post')],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'groups'] },
  findAccount: (ctx, id) => people[id] && { accountId: id, claims: () => ({ sub: id, ...people[id] }) },
  pkce: { required: () => true },
  rotateRefreshToken: true,
  cookies: { keys: ['signs the cookies of a provider that lives for one test run'] },
  jwks: { keys: [signingKey()] },
  ttl: { AccessToken: 3600, AuthorizationCode: 60, Grant: 86400, IdToken: 3600, Interaction: 600, RefreshToken: 86400, Session: 86400 },
  features: {
    devInteractions: { enabled: false },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (ctx, form) => {
        ctx.body = page('Sign out', `${form}<button type="submit" form="op.logoutForm" name="logout" value="yes">Sign out</button>`);
      },
      postLogoutSuccessSource: (ctx) => { ctx.body = page('Signed out', ''); },
    },
  },
  renderError: (ctx, out) => {
    ctx.type = 'html';
    ctx.body = page('Error', Object.entries(out).map(([key, value]) => `<p>${escape(key)}: ${escape(value)}</p>`).join(''));
  },
  // The default dispatcher refuses loopback addresses, where the bridge's back-channel logout is.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
};

const signIn = (problem) => page('Sign in', `<form method="post">${problem ? `<p role="alert">${escape(problem)}</p>` : ''}
<label>Name <input name="name" autocomplete="username" required></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button name="action" value="sign-in">Sign in</button> <button name="action" value="cancel" formnovalidate>Cancel</button></form>`);

const consent = (clientId, scope) => page('Allow access', `<form method="post"><p>${escape(clientId)} asks for: ${escape(scope)}</p>
<button name="action" value="allow">Allow</button> <button name="action" value="cancel">Cancel</button></form>`);

// interact shows the page that the provider asks for and hands what the person did back to it.
async function interact(provider, req, res) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(req, res);
  const show = (status, html) => res.writeHead(status, { 'Content-Type': 'text/html; charset=utf-8', 'Cache-Control': 'no-store' }).end(html);
  if (req.method !== 'POST') {
    return show(200, prompt.name === 'login' ? signIn() : consent(params.client_id, params.scope));
  }
  let body = '';
  for await (const chunk of req) body += chunk;
  const form = new URLSearchParams(body);
  const finish = (result) => provider.interactionFinished(req, res, result, { mergeWithLastSubmission: prompt.name !== 'login' });

  if (form.get('action') === 'cancel') {
    return finish({ error: 'access_denied', error_description: 'the person cancelled' });
  }
  if (prompt.name === 'login') {
    const name = form.get('name');
    if (!Object.hasOwn(people, name) || form.get('password') !== `${name}-password`) {
      return show(401, signIn('Wrong name or password.'));
    }
    return finish({ login: { accountId: name } });
  }
  const grant = (grantId && await provider.Grant.find(grantId))
    || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  return finish({ consent: { grantId: await grant.save() } });
}

async function administer(req, res) {
  const name = req.url.slice('/people/'.length);
  let body = '';
  for await (const chunk of req) body += chunk;
  if (req.method === 'PUT') people[name] = JSON.parse(body);
  else delete people[name];
  res.writeHead(204).end();
}

const server = createServer();
server.listen(Number(flags.port), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  const callback = provider.callback();
  provider.on('server_error', (ctx, err) => console.error(err));
  provider.on('grant.error', (ctx, err) => console.error(`token endpoint: ${err.message}: ${err.error_detail ?? err.error_description}`));
  server.on('request', (req, res) => {
    if (req.url.startsWith('/people/')) return administer(req, res);
    if (!req.url.startsWith('/interaction/')) return callback(req, res);
    interact(provider, req, res).catch((err) => res.writeHead(err.statusCode ?? 500, { 'Content-Type': 'text/html; charset=utf-8' })
      .end(page('Error', `<p>${escape(err.message)}</p>`)));
  });
  console.log(JSON.stringify({ issuer }));
});
process.stdin.resume().on('end', () => process.exit());
