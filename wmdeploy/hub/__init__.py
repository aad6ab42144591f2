"""Models, bundles and clips of the Hugging Face Hub, or of another one that `HF_ENDPOINT` names.

    address.py    what hf://owner/name[/path][@revision] means
    client.py     the client of huggingface_hub, and what went wrong, in one line
    download.py   an address to a local path: what all verbs read from
    push.py       a bundle to a repository

Tokens are huggingface_hub's matter (`HF_TOKEN`, or `hf auth login`): nothing here shows one.
"""
