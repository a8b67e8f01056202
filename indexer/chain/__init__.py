"""IN: the only code that talks to nodes. An answer is hostile until it is bounded and typed.

scrub.py      keeps URLs and credentials out of every text
wire.py       JSON shapes of nodes and strict hex: text in, bytes and ints out
endpoint.py   one URL: one HTTP exchange with a deadline and a byte cap
rpc.py        Node: calls and batches over the endpoints of a chain, with failover
refusals.py   what the many wordings of a node's error mean
head.py       tip, finalized block, headers
logs.py       logs by block hash (live) and by range with proof of coverage (history)
state.py      storage slots at a block hash, transactions, code
bulk.py       storage words of many contracts at many block hashes
questions.py  what an endpoint has pruned is asked of the others
readers.py    byte code that reads many words in one eth_call
slots.py      where a smart account keeps what we read
contracts.py  web3: what `sessionwatch check` asks of nodes and managers
"""
