"""Deep Q-learning with a replay buffer and a target network (keras.io/examples/rl/deep_q_network_breakout)."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import downpour

gamma = 0.9
epsilon, epsilon_min, epsilon_max = 1.0, 0.1, 1.0
epsilon_interval = epsilon_max - epsilon_min
batch_size = 16
num_actions = 2
cells = 6


class Corridor:
    """The agent walks along a corridor; a reward is at its right end."""

    def reset(self):
        self.at = np.random.randint(cells - 1)
        return np.eye(cells)[self.at]

    def step(self, action):
        self.at = int(np.clip(self.at + (1 if action else -1), 0, cells - 1))
        done = self.at == cells - 1
        return np.eye(cells)[self.at], float(done), done


def create_q_model():
    return keras.Sequential(
        [keras.Input((cells,)), layers.Dense(16, activation="relu"), layers.Dense(num_actions, activation="linear")]
    )


env = Corridor()
model = create_q_model()
model_target = create_q_model()
model_target.set_weights(model.get_weights())
optimizer = keras.optimizers.Adam(learning_rate=0.01, clipnorm=1.0)
loss_function = keras.losses.Huber()
action_history, state_history, state_next_history, rewards_history, done_history = [], [], [], [], []
frame_count, update_target_network = 0, 50

with downpour.training(model, optimizer) as job:
    state = env.reset()
    while frame_count < 240:
        frame_count += 1
        if epsilon > np.random.rand(1)[0]:
            action = np.random.choice(num_actions)
        else:
            action_probs = model(ops.expand_dims(ops.convert_to_tensor(state, "float32"), 0), training=False)
            action = int(ops.argmax(action_probs[0]))
        epsilon = max(epsilon - epsilon_interval / 200, epsilon_min)
        state_next, reward, done = env.step(action)
        action_history.append(action)
        state_history.append(state)
        state_next_history.append(state_next)
        done_history.append(done)
        rewards_history.append(reward)
        state = env.reset() if done else state_next
        if frame_count % 4 == 0 and len(done_history) > batch_size:
            indices = np.random.choice(range(len(done_history)), size=batch_size)
            state_sample = np.array([state_history[i] for i in indices], "float32")
            state_next_sample = np.array([state_next_history[i] for i in indices], "float32")
            rewards_sample = [rewards_history[i] for i in indices]
            action_sample = [action_history[i] for i in indices]
            done_sample = ops.convert_to_tensor([float(done_history[i]) for i in indices])
            future_rewards = model_target.predict(state_next_sample, verbose=0)
            updated_q_values = rewards_sample + gamma * ops.amax(future_rewards, axis=1)
            updated_q_values = updated_q_values * (1 - done_sample) + done_sample
            masks = ops.one_hot(action_sample, num_actions)
            with tf.GradientTape() as tape:
                q_values = model(state_sample)
                q_action = ops.sum(ops.multiply(q_values, masks), axis=1)
                loss = loss_function(updated_q_values, q_action)
            grads = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(grads, model.trainable_variables))
        if frame_count % update_target_network == 0:
            model_target.set_weights(model.get_weights())
    right = np.mean(np.argmax(model.predict(np.eye(cells)[:-1], verbose=0), 1))
assert int(optimizer.iterations) == 56 * downpour.size()
print("RESULT part of the cells from which the agent goes right", right)
