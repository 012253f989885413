//! Calls and their answers: HTTP/2 over one WebSocket, both ends.
