"""A local chain with the vendor's real contracts, for the demo and the tests.

In the order of use: npm.py (packages at exact versions, cached), tools.py (Anvil and the compiled
contracts), child.py (processes that end with this one), anvil.py and rpc.py (the node and how to
talk to it), addresses.py and deploy.py (what stands where), operations.py (user operations and
their signatures), accounts.py (`running_devnet`: all of it, ready to play on).
contracts/ holds the Solidity sources that no registry carries. Nothing that `run` uses is here.
"""
