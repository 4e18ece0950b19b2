"""The resident worker: a process of a real node that keeps torch, task and data from message to message.

Flower starts a ClientApp process for each message. Where the node's owner asks for it (`resident=true` in
--node-config), that process imports no torch: it hands its message to the node's resident worker over a Unix
socket (ask), which the first message starts (start) and which ends with its SuperNode, or after a time
without work (serve). Without it, whatever the reason, the ClientApp does the work itself.
"""
