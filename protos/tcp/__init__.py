"""The part of the TCP transport that both sides share: frames on a byte stream, the options of its sockets, and TLS.

It may import `protos`.
"""
