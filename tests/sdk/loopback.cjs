// Loaded before a vendor's program (node --require): it listens on 127.0.0.1 whatever it asks for,
// and reaches no other machine. Each server and each refusal is a line of JSON on stdout.
"use strict";

const net = require("node:net");

const LOOPBACK = new Set(["127.0.0.1", "::1", "localhost"]);

function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...given) {
  const callback = given.find((one) => typeof one === "function");
  const options = typeof given[0] === "object" ? given[0] : { port: given[0] };
  this.once("listening", () => say({ listening: this.address().port }));
  return listen.call(this, { ...options, host: "127.0.0.1" }, callback);
};

const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...given) {
  // Node's own modules hand over [options, callback] as one list.
  const [first, second] = Array.isArray(given[0]) ? given[0] : given;
  const options =
    typeof first === "object" ? first : { port: first, host: second };
  const host = typeof options.host === "string" ? options.host : "localhost";
  if (options.path || LOOPBACK.has(host)) return connect.apply(this, given);
  say({ refused: host });
  process.nextTick(() => this.destroy(new Error(`no way to ${host}`)));
  return this;
};
