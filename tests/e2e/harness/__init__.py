"""What the end-to-end tests stand on: brokers to start, tools and clients to run, and a wire codec of their own."""
