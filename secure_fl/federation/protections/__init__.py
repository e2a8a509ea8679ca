"""What may leave a client, and with which noise. `Open`, `ExampleLevel` and `ClientLevel` say it, a
file for each. A client is composed with one of them.
"""
