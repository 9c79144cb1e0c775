// A Restate service with one handler of three durable steps of 200 bytes, or of as many as it is given with the seconds of each tenth.
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
      const steps = input.steps ?? 3;
      const at = [];
      for (let number = 0; number < steps; number++) {
        if (number % (steps / 10) === 0) at.push(performance.now());
        await ctx.run(`step-${number}`, () => text);
      }
      if (input.steps === undefined) return "benchmark-done";
      at.push(performance.now());
      return { said: "benchmark-done", tenths_s: at.slice(1).map((now, place) => (now - at[place]) / 1000) };
    },
  },
});

const logger = (meta, ...texts) => meta.level === "error" && console.error(...texts);
createServer(restate.createEndpointHandler({ services: [runs], logger })).listen(Number(port), "127.0.0.1");
