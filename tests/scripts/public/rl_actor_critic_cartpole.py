"""Actor critic method (keras.io/examples/rl/actor_critic_cartpole); the environment is a pole in NumPy."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import downpour


class CartPole:
    def reset(self):
        self.state = np.random.uniform(-0.05, 0.05, 4)
        return self.state

    def step(self, action):
        x, v, angle, speed = self.state
        force = 10.0 if action == 1 else -10.0
        temp = (force + 0.05 * speed**2 * np.sin(angle)) / 1.1
        acceleration = (9.8 * np.sin(angle) - np.cos(angle) * temp) / (0.5 * (4 / 3 - 0.1 * np.cos(angle) ** 2 / 1.1))
        drift = temp - 0.05 * acceleration * np.cos(angle) / 1.1
        self.state = np.array([x + 0.02 * v, v + 0.02 * drift, angle + 0.02 * speed, speed + 0.02 * acceleration])
        done = abs(self.state[0]) > 2.4 or abs(self.state[2]) > 0.21
        return self.state, 1.0, done


gamma = 0.99
max_steps_per_episode = 60
env = CartPole()
eps = np.finfo(np.float32).eps.item()
num_inputs = 4
num_actions = 2
num_hidden = 32

inputs = layers.Input(shape=(num_inputs,))
common = layers.Dense(num_hidden, activation="relu")(inputs)
action = layers.Dense(num_actions, activation="softmax")(common)
critic = layers.Dense(1)(common)
model = keras.Model(inputs=inputs, outputs=[action, critic])

optimizer = keras.optimizers.Adam(learning_rate=0.01)
huber_loss = keras.losses.Huber()
running_reward = 0
with downpour.training(model, optimizer) as job:
    for episode_count in range(12):
        action_probs_history, critic_value_history, rewards_history = [], [], []
        state = env.reset()
        episode_reward = 0
        with tf.GradientTape() as tape:
            for timestep in range(1, max_steps_per_episode):
                state = keras.ops.convert_to_tensor(state, "float32")
                state = keras.ops.expand_dims(state, 0)
                action_probs, critic_value = model(state)
                critic_value_history.append(critic_value[0, 0])
                action = np.random.choice(num_actions, p=np.squeeze(action_probs) / np.sum(action_probs))
                action_probs_history.append(keras.ops.log(action_probs[0, action]))
                state, reward, done = env.step(action)
                rewards_history.append(reward)
                episode_reward += reward
                if done:
                    break
            running_reward = 0.05 * episode_reward + (1 - 0.05) * running_reward
            returns = []
            discounted_sum = 0
            for r in rewards_history[::-1]:
                discounted_sum = r + gamma * discounted_sum
                returns.insert(0, discounted_sum)
            returns = np.array(returns)
            returns = (returns - np.mean(returns)) / (np.std(returns) + eps)
            returns = returns.tolist()
            history = zip(action_probs_history, critic_value_history, returns)
            actor_losses, critic_losses = [], []
            for log_prob, value, ret in history:
                diff = ret - value
                actor_losses.append(-log_prob * tf.stop_gradient(diff))
                critic_losses.append(huber_loss(keras.ops.expand_dims(value, 0), keras.ops.expand_dims(ret, 0)))
            loss_value = sum(actor_losses) + sum(critic_losses)
        grads = tape.gradient(loss_value, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables))
    first_steps = job.mean(len(rewards_history))
assert np.isfinite(running_reward) and int(optimizer.iterations) == 12 * downpour.size()
print("RESULT running reward", running_reward, first_steps)
