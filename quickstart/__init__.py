"""The host half of riva-qs: from one configuration file to a speech service that answers.

The flow is the list of modules, read from left to right:

    config.env -> Settings -> [Artifact] -> rmir/*.rmir -> deploy -> models/ ...
                  config/     catalog/      sources/       backends/ store/
                                            transfer/
    ... -> running server -> ready -> answers
           backends/         health.py  client.py

`deployment.py` (init) and `lifecycle.py` (start to clean) hold the order of these steps,
`planning.py` says what init will do, `fit.py` whether it fits, and `lock_file.py` how to do the
same once more; `upkeep.py` and `bundle/` are what is done between two deploys, `cli.py` and
`commands/` are the command line, `console.py` has all output and `errors.py` everything that can
go wrong. This half runs programs and reads their files; it never imports the engine, and nothing
numeric.
"""

__version__ = "0.1.0"
