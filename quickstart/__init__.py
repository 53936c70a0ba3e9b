"""The host half of riva-qs: from one configuration file to a speech service that answers.

The flow is the list of modules, read from left to right:

    config.env -> Settings -> [Artifact] -> rmir/*.rmir -> deploy -> models/ ...
                  config/     catalog.py    sources/       backends/ store.py
                                            transfer.py
    ... -> running server -> ready -> answers
           backends/         health.py  client.py

`lifecycle.py` holds the order of these steps, `cli.py` the commands, `console.py` all output and
`errors.py` everything that can go wrong. This half runs programs and reads their files; it never
imports the engine, and nothing numeric.
"""

__version__ = "0.1.0"
