"""The face-animation systems that the runtime can run, one module each."""
