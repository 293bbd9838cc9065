"""`python -m sc2keras`, the command `sc2keras`."""

from sc2keras_command import start

if __name__ == "__main__":
    start()
