const http = require("http");
const os = require("os");

console.log("Kubia server starting...");

// The bad version: from its fifth request on, a pod answers nothing but errors.
let requests = 0;

http
  .createServer((request, response) => {
    console.log("Received request from " + request.connection.remoteAddress);
    requests += 1;
    if (requests >= 5) {
      response.writeHead(500);
      response.end("Some internal error has occurred! This is pod " + os.hostname() + "\n");
      return;
    }
    response.writeHead(200);
    response.end("This is v3 running in pod " + os.hostname() + "\n");
  })
  .listen(8080);
