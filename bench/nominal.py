"""The nominal work of a training step: what has to be computed, counted once for all tools, in floating-point operations.

    python3 -m doctest bench/nominal.py              # a step small enough to count by hand; silent if the counts agree

Counted are products, two operations for each multiply-add: projections, attention and head, forward and gradient of inputs.
A step counts the tokens and rows that are needed and no others, whatever a tool computes. Tokens before the texts (the virtual
tokens, and those that all texts begin with) stand once; each text stands once, without padding. The last layer makes keys and
values of all tokens, the rest of it only for rows with a loss. The first layer needs gradients through queries, keys and values only
for virtual tokens. The head needs the columns of the labels' tokens, and the whole vocabulary only below labels of several tokens.
Norms, activations, the softmax, the optimizer and whatever is computed a second time are not counted.
"""

from typing import NamedTuple


class Shape(NamedTuple):
    """What config.json says of a decoder's sizes."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    gated: bool
    vocabulary: int

    @classmethod
    def of(cls, config):
        """From a config.json of GPT-2's names or of Llama's."""
        hidden = config.get("hidden_size") or config["n_embd"]
        heads = config.get("num_attention_heads") or config["n_head"]
        return cls(
            hidden=hidden,
            intermediate=config.get("intermediate_size") or config.get("n_inner") or 4 * hidden,
            layers=config.get("num_hidden_layers") or config["n_layer"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_width=config.get("head_dim") or hidden // heads,
            gated=config["model_type"] != "gpt2",
            vocabulary=config["vocab_size"],
        )


class Work(NamedTuple):
    """Floating-point operations of a step, and the tokens that it computes."""

    projections: int
    attention: int
    head: int
    tokens: int

    @property
    def operations(self):
        return self.projections + self.attention + self.head


def training_work(shape, n_virtual, n_shared, texts, labels=(1, 1)):
    """The work of a step over one soft prompt at the front.

    `n_shared` tokens begin every text; `texts` are the tokens of each that come after them; `labels` the tokens of each candidate,
    of which every text is followed by all. All but a label's last token is a row of its own below the text.

    One virtual token, a text of two tokens and two labels of one, two layers, two wide, one head, three inside. By hand, in
    multiply-adds:
    projections: layer 1, three rows: keys and values 3·8, queries and output 3·8, MLP 3·18: 102. Layer 2: keys and values 24, and the
    loss row's 8 + 18: 50. Back: layer 2 50; layer 1 MLP 54, output 12, and of the virtual token queries 4, keys and values 8: 78.
    attention: layer 1, the pairs of query and key 1 + 2 + 3 = 6, each 4; layer 2, the loss row's 3: 12. Back: layer 2 3·8; layer 1, the
    3 pairs whose key is virtual, each 6, and the virtual query's 2.
    head: two columns of 2, forward and back.

    >>> tiny = Shape(hidden=2, intermediate=3, layers=2, heads=1, kv_heads=1, head_width=2, gated=True, vocabulary=10)
    >>> work = training_work(tiny, 1, 0, [2])
    >>> work.projections == 2 * (102 + 50 + 50 + 78), work.attention == 2 * (24 + 12 + 24 + 18 + 2), work.head == 2 * (4 + 4)
    (True, True, True)
    >>> work.tokens
    3

    With a label of two tokens there is a row more: 34 multiply-adds forward in each layer; back 34 and, in the first, all but its
    queries, keys and values. It sees four keys. Each label token is a column, and the new row needs the log-sum over the vocabulary.

    >>> more = training_work(tiny, 1, 0, [2], labels=(1, 2))
    >>> more.projections - work.projections == 2 * (34 + 34 + 34 + 22)
    True
    >>> more.attention - work.attention == 2 * (4 * 4 + 4 * 4 + 4 * 8 + 6)
    True
    >>> more.head - work.head == 2 * (2 + 2 + 2 * 10 * 2)
    True

    Twice the texts without the trunk is twice the work; the trunk counts once.

    >>> one, two = (training_work(tiny, 0, 0, [5] * n) for n in (1, 2))
    >>> two.operations == 2 * one.operations
    True
    """
    trunk = n_virtual + n_shared
    leaves = [label - 1 for label in labels if label > 1]
    rows = trunk + sum(text + sum(leaves) for text in texts)
    loss_rows = len(texts) * (1 + sum(leaves))

    # Multiply-adds for a row.
    query_width = shape.heads * shape.head_width
    query = output = shape.hidden * query_width
    key_value = shape.hidden * 2 * shape.kv_heads * shape.head_width
    mlp = (3 if shape.gated else 2) * shape.hidden * shape.intermediate
    inner = (shape.layers - 1) * rows * (query + key_value + output + mlp)
    last = rows * key_value + loss_rows * (query + output + mlp)
    # Of one layer in all, the queries are those of rows with a loss, and none is a virtual token's.
    if shape.layers > 1:
        not_needed = (rows - n_virtual) * (query + key_value)
    else:
        not_needed = (rows - n_virtual) * key_value + loss_rows * query
    projections = 2 * (inner + last) - not_needed

    # Pairs of a query and a key that it sees.
    def seen(above, own):
        """By `own` rows, each of which sees `above` rows and its own segment up to itself."""
        return own * above + own * (own + 1) // 2

    below = sum(seen(trunk + text, leaf) for text in texts for leaf in leaves)
    pairs = seen(0, trunk) + sum(seen(trunk, text) for text in texts) + below
    last_pairs = sum(trunk + text for text in texts) + below
    of_virtual = seen(0, n_virtual)
    if shape.layers > 1:
        with_virtual_key = of_virtual + (rows - n_virtual) * n_virtual
    else:
        of_virtual, with_virtual_key = 0, loss_rows * n_virtual
    # A pair takes one product with the key and one with the value; back, two for each of them. In the first layer only virtual
    # tokens need the gradient of their keys and values (three of the four), and of their queries (the fourth).
    forward = 2 * ((shape.layers - 1) * pairs + last_pairs)
    back = 4 * (max(shape.layers - 2, 0) * pairs + (last_pairs if shape.layers > 1 else 0))
    attention = (forward + back + 3 * with_virtual_key + of_virtual) * query_width

    columns = len(texts) * (sum(labels) + sum(leaves) * shape.vocabulary)
    head = 2 * columns * shape.hidden
    return Work(2 * projections, 2 * attention, 2 * head, rows)
