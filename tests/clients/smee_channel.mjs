// Has smee-client make a channel, and prints its URL. The argument is where channels are made.

import SmeeClient from 'smee-client';

console.log(await SmeeClient.createChannel({ newChannelUrl: process.argv[2] }));
