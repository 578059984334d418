"""The private side of the simulated venues: accounts with keys, an order engine, its ledger and the signed protocols.

Pure: ``model``, ``positions``, ``rules``, ``engine``, ``keys``, ``listen_keys``, ``signing``, ``lines``, ``*_texts``,
``spot_queries``, ``deribit_channels`` and ``deribit_methods``. The edges that speak to clients are ``side`` (common),
``binance_signed``, ``spot_stream``, ``usdm_stream`` and ``deribit_private``.
"""
