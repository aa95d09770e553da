"""The command line, the launchers, and what they show to a person."""

if __name__ != "downpour.deploy":  # its folder lies on sys.path: a second copy
    raise ImportError(
        f"the package must be imported as downpour.deploy; received {__name__}. Write: import downpour.deploy"
    )
