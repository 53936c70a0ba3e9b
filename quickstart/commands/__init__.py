"""The commands of riva-qs: each loads settings, calls one function and shows its result.

`session` is what all of them have. `store` fills a model location and keeps it in order, `service`
runs the service and uses it, `bench` measures it, `config` and `image` are about what these need.
Everything heavy is imported inside the commands, so that `--help` and completion stay quick.
"""
