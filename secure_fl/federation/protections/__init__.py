"""What may leave a client, and with which noise: `Open`, `ExampleLevel`, `ClientLevel`. A client is composed with one of them."""
