// An OpenID provider for stories: a certified one, with accounts that sign in by themselves. It can be told to lie in its
// ID tokens, with its own key or with another, and to break.
//
//   NODE_MODULES=… node provider.mjs '{"redirect_uri": "…", "accounts": {"ann": {"email": …, "email_verified": …}}}'
//
// Says its issuer on a line of JSON. `POST /lie` takes what is told from then on: {"claims": {…}, "header": {…},
// "sign": "own" | "other" | "none" | "hs256" | "hs256-pem", "status": 503, "huge": true}.

import crypto from "node:crypto";
import http from "node:http";
import path from "node:path";
import { pathToFileURL } from "node:url";

const library = path.join(process.env.NODE_MODULES, "oidc-provider/lib/index.js");
const { default: Provider } = await import(pathToFileURL(library));
const { redirect_uri, accounts } = JSON.parse(process.argv[2]);

const pair = () => crypto.generateKeyPairSync("rsa", { modulusLength: 2048 });
const own = pair();
const other = pair();
const jwk = { ...own.privateKey.export({ format: "jwk" }), kid: "k1", alg: "RS256", use: "sig" };
const encode = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
let lie = {};

/// The same token, but for the lie.
function twist(token) {
  const [head, body] = token.split(".").slice(0, 2).map((part) => JSON.parse(Buffer.from(part, "base64url")));
  const sign = lie.sign ?? "own";
  const algs = { own: "RS256", other: "RS256", none: "none", hs256: "HS256", "hs256-pem": "HS256" };
  const claims = { ...body, ...lie.claims };
  for (const [name, value] of Object.entries(claims)) if (value === null) delete claims[name];
  const message = `${encode({ ...head, alg: algs[sign], ...lie.header })}.${encode(claims)}`;
  const hmac = (secret) => crypto.createHmac("sha256", secret).update(message).digest("base64url");
  const signed = {
    own: () => crypto.sign("sha256", Buffer.from(message), own.privateKey).toString("base64url"),
    other: () => crypto.sign("sha256", Buffer.from(message), other.privateKey).toString("base64url"),
    none: () => "",
    // The public key, which everybody has, as a shared secret; in two of its forms.
    hs256: () => hmac(Buffer.from(jwk.n, "base64url")),
    "hs256-pem": () => hmac(own.publicKey.export({ type: "spki", format: "pem" })),
  };
  return `${message}.${signed[sign]()}`;
}

/// Lets the answer of the token endpoint through, with the lie in it.
function listen(response) {
  const parts = [];
  const end = response.end.bind(response);
  response.write = (part) => parts.push(Buffer.from(part));
  response.end = (part) => {
    if (part) parts.push(Buffer.from(part));
    let text = Buffer.concat(parts).toString();
    const answer = JSON.parse(text);
    if (answer.id_token) {
      answer.id_token = twist(answer.id_token);
      if (lie.without_id_token) delete answer.id_token;
      if (lie.huge) answer.padding = "x".repeat(1024 * 1024);
      text = JSON.stringify(answer);
    }
    response.setHeader("content-length", Buffer.byteLength(text));
    return end(text);
  };
}

const server = http.createServer(async (request, response) => {
  if (request.url === "/lie") {
    let text = "";
    for await (const chunk of request) text += chunk;
    lie = JSON.parse(text);
    return response.end("{}");
  }
  if (request.url.startsWith("/interaction/")) {
    const { params } = await provider.interactionDetails(request, response);
    const result = params.login_hint === "nobody"
      ? { error: "access_denied", error_description: "they do not want to" }
      : { login: { accountId: params.login_hint } };
    return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  }
  if (request.url === "/token") {
    if (lie.status) {
      response.writeHead(lie.status, { location: "http://127.0.0.1:1/elsewhere" });
      return response.end("{}");
    }
    listen(response);
  }
  return handle(request, response);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "air",
      client_secret: "a secret: with/odd characters&=",
      redirect_uris: [redirect_uri],
      token_endpoint_auth_method: "client_secret_post",
    },
  ],
  jwks: { keys: [jwk] },
  pkce: { required: () => true },
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
  conformIdTokenClaims: false,
  cookies: { keys: ["a key for cookies"] },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_, id) => accounts[id] && { accountId: id, claims: () => ({ sub: id, ...accounts[id] }) },
  async loadExistingGrant({ oidc }) {
    const grant = new provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
    grant.addOIDCScope("openid email profile");
    await grant.save();
    return grant;
  },
});
const handle = provider.callback();
console.log(JSON.stringify({ issuer }));
