// A Restate service with one handler of three durable steps of 200 bytes.
// node restate.mjs FOLDER_OF_PACKAGES PORT
import { createRequire } from "node:module";
import { createServer } from "node:http2";

Promise.withResolvers ??= function () { // its SDK expects Node.js 22 or newer
  const found = {};
  found.promise = new this((resolve, reject) => Object.assign(found, { resolve, reject }));
  return found;
};

const [folder, port] = process.argv.slice(2);
const restate = createRequire(`${folder}/`)("@restatedev/restate-sdk");
const text = "x".repeat(200);

const runs = restate.service({
  name: "Runs",
  handlers: {
    start: async (ctx, input) => {
      for (let number = 0; number < 3; number++) {
        await ctx.run(`step-${number}`, () => text);
      }
      return "benchmark-done";
    },
  },
});

const logger = (meta, ...texts) => meta.level === "error" && console.error(...texts);
createServer(restate.createEndpointHandler({ services: [runs], logger })).listen(Number(port), "127.0.0.1");
