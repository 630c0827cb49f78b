"""A seeded run of faults against a whole instance under load, and a checker of its history.

    transport.py   one HTTP request; how it ended
    engine.py      load through the Docker API: runs, execs, logs, builds, pulls, removals
    cluster.py     load through the Kubernetes API: counters, a watch, pods, a deployment
    faults.py      what is done to the platform meanwhile
    history.py     everything that was asked, answered, seen and done, with times
    processes.py   who runs, and what the platform has on the machine
    places.py      how much of each kind stands in its directories
    defects.py     what its logs should never hold
    checker.py     a history in, violations out; knows nothing of how it came to be
    trial.py       all of it together

`python -m tests.system.chaos --minutes 10 --seed 7` runs it by hand; `--faults swap=20,kill=1` changes
how often each kind is chosen, `--load docker` who asks.
"""
