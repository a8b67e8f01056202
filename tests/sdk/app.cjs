// An app on the vendor's SDK, as its documentation has it: a smart account, sessions kept in
// localStorage, mints signed by session keys. Commands are lines of JSON on stdin, the answer to
// each is one line on stdout: what was done, and all that the app's storage holds then.
"use strict";

const { createRequire } = require("node:module");
const { createInterface } = require("node:readline");

const installed = createRequire(`${process.cwd()}/package.json`);
const sdk = installed("@biconomy/account");
const { createWalletClient, encodeAbiParameters, encodeFunctionData, http, parseAbi } =
  installed("viem");
const { privateKeyToAccount } = installed("viem/accounts");

const POLL_MILLISECONDS = 50; // the SDK's own pause between two questions for a receipt is 5 s

// A page's localStorage is not the SDK's alone.
const items = new Map([["theme", "dark"]]);
globalThis.localStorage = {
  getItem: (key) => items.get(key) ?? null,
  setItem: (key, value) => items.set(key, String(value)),
};

let given; // what the first command says: URLs, addresses, the owner's key
let chain;
let account;
let sessions; // the SDK's session manager module
let setRoot; // calldata that createSessionData made and nobody has sent yet

const openSessions = async (storageType) =>
  sdk.createSessionKeyManagerModule({
    smartAccountAddress: await account.getAccountAddress(),
    storageType,
  });

const commands = {
  async open(command) {
    given = command;
    chain = sdk.getCustomChain("devnet", given.chain_id, given.node_url, given.node_url);
    const signer = createWalletClient({
      account: privateKeyToAccount(given.owner_key),
      chain,
      transport: http(given.node_url),
    });
    const bundler = new sdk.Bundler({
      bundlerUrl: given.bundler_url,
      customChain: chain,
      userOpReceiptIntervals: { [given.chain_id]: POLL_MILLISECONDS },
    });
    account = await sdk.createSmartAccountClient({
      signer,
      chainId: given.chain_id,
      customChain: chain,
      bundler,
    });
    sessions = await openSessions(sdk.StorageType.LOCAL_STORAGE);
    return { account: await account.getAccountAddress() };
  },

  // Make a session: the store has it and its root from now on, the chain knows nothing yet.
  async create_session({ recipient, token_id }) {
    const signer = await sessions.sessionStorageClient.addSigner(undefined, chain);
    const key = await signer.getAddress();
    const made = await sessions.createSessionData([
      {
        validUntil: 0,
        validAfter: 0,
        sessionValidationModule: given.session_module,
        sessionPublicKey: key,
        sessionKeyData: encodeAbiParameters(
          [{ type: "address" }, { type: "address" }, { type: "uint256" }],
          [key, recipient, BigInt(token_id)],
        ),
      },
    ]);
    setRoot = made.data;
    return { session_id: made.sessionIDInfo[0] };
  },

  async revoke({ session_id }) {
    const root = await sessions.revokeSessions([session_id]);
    setRoot = encodeFunctionData({
      abi: parseAbi(["function setMerkleRoot(bytes32)"]),
      args: [root],
    });
    return {};
  },

  // Send the root that was made last; the first time with the account and the module's permission.
  async send_root() {
    const manager = sessions.getAddress();
    const calls = [{ to: manager, data: setRoot }];
    // Not isAccountDeployed(): that remembers the answer from before the account was created.
    if ((await account.getInitCode()) !== "0x") {
      calls.unshift(await account.getEnableModuleData(manager));
    }
    return sent(await account.sendTransaction(calls));
  },

  async mint({ session_id, recipient, token_id }) {
    const sessionSigner = await sessions.sessionStorageClient.getSignerBySession(
      { sessionID: session_id },
      chain,
    );
    const data = encodeFunctionData({
      abi: parseAbi(["function mintTo(address, uint256, uint256)"]),
      args: [recipient, BigInt(token_id), 1n],
    });
    const ownersModule = account.activeValidationModule;
    account.setActiveValidationModule(sessions);
    try {
      return await sent(
        await account.sendTransaction(
          { to: given.token, data },
          { params: { sessionSigner, sessionID: session_id } },
        ),
      );
    } finally {
      account.setActiveValidationModule(ownersModule);
    }
  },

  // What closing and opening the page does: the SDK builds its tree from the store again.
  async reopen() {
    sessions = await openSessions(sdk.StorageType.LOCAL_STORAGE);
    return {};
  },

  // The same account from a device that has never seen its sessions, and keeps its own in memory.
  async use_another_device() {
    sessions = await openSessions(sdk.StorageType.MEMORY_STORAGE);
    return {};
  },
};

function stored() {
  const client = sessions.sessionStorageClient;
  if (client instanceof sdk.SessionLocalStorage) return Object.fromEntries(items);
  return {
    [client.getStorageKey("sessions")]: JSON.stringify(client.getSessionStore()),
    [client.getStorageKey("signers")]: JSON.stringify(client.getSignerStore()),
  };
}

async function sent({ userOpHash, wait }) {
  const { success } = await wait();
  return { user_op_hash: userOpHash, success };
}

async function main() {
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    let answer;
    try {
      answer = await commands[command.do](command);
    } catch (error) {
      answer = { error: error.stack };
    }
    answer.tree_root = sessions.merkleTree.getHexRoot();
    answer.storage = stored();
    process.stdout.write(`${JSON.stringify({ answer })}\n`);
  }
}

main();
