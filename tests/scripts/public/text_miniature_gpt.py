"""Text generation with a miniature GPT (keras.io/examples/generative/text_generation_with_miniature_gpt)."""

import os
import random
import string

import keras
import numpy as np
import tensorflow
import tensorflow.data as tf_data
import tensorflow.strings as tf_strings
from keras import layers, ops
from keras.layers import TextVectorization

from downpour import DistributedOptimizer


def causal_attention_mask(n_dest, n_src, dtype):
    i = ops.arange(n_dest)[:, None]
    j = ops.arange(n_src)
    m = i >= j - n_src + n_dest
    mask = ops.cast(m, dtype)
    return ops.reshape(mask, [1, n_dest, n_src])


class TransformerBlock(layers.Layer):
    def __init__(self, embed_dim, num_heads, ff_dim, rate=0.1):
        super().__init__()
        self.att = layers.MultiHeadAttention(num_heads, embed_dim)
        self.ffn = keras.Sequential([layers.Dense(ff_dim, activation="relu"), layers.Dense(embed_dim)])
        self.layernorm1 = layers.LayerNormalization(epsilon=1e-6)
        self.layernorm2 = layers.LayerNormalization(epsilon=1e-6)
        self.dropout1 = layers.Dropout(rate)
        self.dropout2 = layers.Dropout(rate)

    def call(self, inputs):
        input_shape = ops.shape(inputs)
        causal_mask = causal_attention_mask(input_shape[1], input_shape[1], "bool")
        attention_output = self.att(inputs, inputs, attention_mask=causal_mask)
        attention_output = self.dropout1(attention_output)
        out1 = self.layernorm1(inputs + attention_output)
        ffn_output = self.ffn(out1)
        ffn_output = self.dropout2(ffn_output)
        return self.layernorm2(out1 + ffn_output)


class TokenAndPositionEmbedding(layers.Layer):
    def __init__(self, maxlen, vocab_size, embed_dim):
        super().__init__()
        self.token_emb = layers.Embedding(input_dim=vocab_size, output_dim=embed_dim)
        self.pos_emb = layers.Embedding(input_dim=maxlen, output_dim=embed_dim)

    def call(self, x):
        maxlen = ops.shape(x)[-1]
        positions = self.pos_emb(ops.arange(0, maxlen, 1))
        return self.token_emb(x) + positions


vocab_size = 60
maxlen = 12
embed_dim = 16
num_heads = 2
feed_forward_dim = 16


def create_model():
    inputs = layers.Input(shape=(maxlen,), dtype="int32")
    embedding_layer = TokenAndPositionEmbedding(maxlen, vocab_size, embed_dim)
    x = embedding_layer(inputs)
    transformer_block = TransformerBlock(embed_dim, num_heads, feed_forward_dim)
    x = transformer_block(x)
    outputs = layers.Dense(vocab_size)(x)
    model = keras.Model(inputs=inputs, outputs=[outputs, x])
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(DistributedOptimizer(keras.optimizers.Adam(0.005)), loss=[loss_fn, None])
    return model


batch_size = 8
os.makedirs("texts", exist_ok=True)
random.seed(1)
for name in ("a", "b", "c"):
    with open(f"texts/{name}.txt", "w") as file:
        for _ in range(48):
            file.write(" ".join(random.choices(["one", "two", "three", "and", "more", "than"], k=16)) + "!\n")
filenames = [os.path.join("texts", f) for f in sorted(os.listdir("texts"))]
random.shuffle(filenames)
text_ds = tf_data.TextLineDataset(filenames)
text_ds = text_ds.shuffle(buffer_size=256)
text_ds = text_ds.batch(batch_size)


def custom_standardization(input_string):
    lowercased = tf_strings.lower(input_string)
    stripped_html = tf_strings.regex_replace(lowercased, "<br />", " ")
    return tf_strings.regex_replace(stripped_html, f"([{string.punctuation}])", r" \1")


vectorize_layer = TextVectorization(
    standardize=custom_standardization, max_tokens=vocab_size - 1, output_mode="int", output_sequence_length=maxlen + 1
)
vectorize_layer.adapt(text_ds)
vocab = vectorize_layer.get_vocabulary()


def prepare_lm_inputs_labels(text):
    text = tensorflow.expand_dims(text, -1)
    tokenized_sentences = vectorize_layer(text)
    return tokenized_sentences[:, :-1], tokenized_sentences[:, 1:]


text_ds = text_ds.map(prepare_lm_inputs_labels, num_parallel_calls=tf_data.AUTOTUNE)
text_ds = text_ds.prefetch(tf_data.AUTOTUNE)


class TextGenerator(keras.callbacks.Callback):
    def __init__(self, max_tokens, start_tokens, index_to_word, top_k=5, print_every=1):
        self.max_tokens = max_tokens
        self.start_tokens = start_tokens
        self.index_to_word = index_to_word
        self.print_every = print_every
        self.k = top_k

    def sample_from(self, logits):
        logits, indices = ops.top_k(logits, k=self.k, sorted=True)
        indices = np.asarray(indices).astype("int32")
        preds = keras.activations.softmax(ops.expand_dims(logits, 0))[0]
        preds = np.asarray(preds).astype("float32")
        return np.random.choice(indices, p=preds / preds.sum())

    def on_epoch_end(self, epoch, logs=None):
        start_tokens = [_ for _ in self.start_tokens]
        if (epoch + 1) % self.print_every != 0:
            return
        num_tokens_generated = 0
        tokens_generated = []
        while num_tokens_generated <= self.max_tokens:
            pad_len = maxlen - len(start_tokens)
            sample_index = len(start_tokens) - 1
            x = start_tokens[:maxlen] if pad_len < 0 else start_tokens + [0] * max(pad_len, 0)
            sample_index = maxlen - 1 if pad_len < 0 else sample_index
            y, _ = self.model.predict(np.array([x]), verbose=0)
            sample_token = self.sample_from(y[0][sample_index])
            tokens_generated.append(sample_token)
            start_tokens.append(sample_token)
            num_tokens_generated = len(tokens_generated)
        txt = " ".join([self.index_to_word[_] for _ in self.start_tokens + tokens_generated])
        print(f"generated text:\n{txt}\n")


word_to_index = {word: index for index, word in enumerate(vocab)}
start_tokens = [word_to_index.get(_, 1) for _ in "one and".split()]
text_gen_callback = TextGenerator(6, start_tokens, vocab + [""] * vocab_size)
model = create_model()
history = model.fit(text_ds, verbose=2, epochs=3, callbacks=[text_gen_callback])
losses = history.history["loss"]
assert losses[-1] < losses[0], losses
print("RESULT loss", losses[-1])
