"""Clients, their channels, and answers that are not written yet as plain data, and as they were again.

What the two sides of a channel see stays as it is: its socket and its rings go on, and with them whatever is unread
there.  ``snapshot`` numbers what belongs to the kernel, and descriptors.
"""

from __future__ import annotations

import socket

from machport.abi.traps import Batch
from machport.carrier import rings
from machport.kernel.task import Task
from machport.kernel.waiter import Result, new_waiter
from machport.peer.attestation import Peer
from machport.server.closer import Closer
from machport.server.connection import Channel, Client, TaggedCall
from machport.server.dispatch import Answer
from machport.server.snapshot import Restoring, Saving, State


def _results(answer: Answer) -> list[Result]:
    return [] if answer.result is None else [answer.result, *(answer.more or ())]


def _delivered(channel: Channel) -> list[tuple[int, Result]]:
    if not channel.delivered or not channel.by_ring or channel.rings is None:
        return channel.delivered
    up = channel.rings.up
    read = up.enqueued - up.unread()
    return [delivered for delivered in channel.delivered if delivered[0] > read]


# Clients


def save_peer(peer: Peer, saving: Saving) -> State:
    return [peer.pid, peer.uid, peer.gid, saving.descriptor(peer.pidfd), peer.version]


def resume_peer(state: State, restoring: Restoring) -> Peer:
    pid, uid, gid, pidfd, version = state
    return Peer(pid, uid, gid, restoring.descriptor(pidfd), version)


def save_client(client: Client, saving: Saving) -> State:
    """A client with all its channels, the control connection first."""
    others = [channel for channel in client.channels if channel is not client.control]
    return {
        "peer": save_peer(client.peer, saving),
        "task": saving.task(client.task),
        "closes": client.closes,
        "was_made": client.was_made,
        "allows_task_for_pid": client.allows_task_for_pid,
        "looks_on": client.looks_on,
        "began": client.began,
        "channels": [save_channel(channel, saving) for channel in (client.control, *others)],
    }


def resume_client(state: State, closer: Closer, restoring: Restoring) -> Client:
    task = restoring.task(state["task"])
    control, *others = [resume_channel(channel, closer, restoring, task) for channel in state["channels"]]
    client = Client(resume_peer(state["peer"], restoring), task, control, state["was_made"])
    client.closes = state["closes"]
    client.allows_task_for_pid = state["allows_task_for_pid"]
    control.peer = client.peer
    client.looks_on, client.began = state["looks_on"], state["began"]
    for channel in others:
        client.add(channel)
    return client


# Channels


def save_channel(channel: Channel, saving: Saving) -> State:
    tagged = channel.tagged
    many = channel.many
    return {
        "number": saving.channel(channel),
        "socket": saving.descriptor(channel.sock.fileno()),
        "rings": _save_rings(channel.rings, saving),
        "waiter": None if channel.waiter is None else saving.waiter(channel.waiter),
        "tagged": None
        if tagged is None
        else [[call.tag, saving.waiter(call.waiter), call.deadline] for call in tagged.values() if call.waiter],
        "batch": None if channel.batch is None else [bytes(channel.batch.trap), channel.batch.sent],
        "many": None if many is None else [many.option, many.rcv_limit, many.rcv_name],
        "left": channel.left,
        "deadline": channel.deadline,
        "by_ring": channel.by_ring,
        "outbox": [save_answer(answer, saving) for answer in channel.outbox],
        "delivered": [[number, saving.result(result)] for number, result in _delivered(channel)],
        "reset": channel.reset,
        "memory": channel.memory,
    }


def resume_channel(state: State, closer: Closer, restoring: Restoring, task: Task | None = None) -> Channel:
    """A channel as it was; who waits, until when, is still to be told (``deadlines``)."""
    pair = _resume_rings(state["rings"], restoring)
    channel = Channel(socket.socket(fileno=restoring.descriptor(state["socket"])), closer, pair)
    restoring.channels[state["number"]] = channel
    channel.deadline = state["deadline"]
    channel.left = state["left"]
    channel.by_ring = state["by_ring"]
    channel.reset = state["reset"]
    channel.memory = state["memory"]
    channel.delivered = [(number, restoring.result(result)) for number, result in state["delivered"]]
    channel.outbox.extend(resume_answer(answer, restoring) for answer in state["outbox"])
    if state["waiter"] is not None:
        channel.waiter = restoring.waiter(state["waiter"])
        channel.waiter.owner = channel
    if state["tagged"] is not None:
        channel.tagged = {}
        for tag, waiter, deadline in state["tagged"]:
            call = channel.tagged[tag] = TaggedCall(channel, tag)
            call.waiter = restoring.waiter(waiter)
            call.waiter.owner = call
            call.deadline = deadline
    if state["batch"] is not None:
        trap, sent = state["batch"]
        channel.batch = Batch(trap)
        while channel.batch.sent < sent:
            channel.batch.next()
    if state["many"] is not None:
        assert task is not None
        option, rcv_limit, rcv_name = state["many"]
        channel.many = new_waiter(task, option, rcv_limit, rcv_name, 0)
    return channel


def _save_rings(pair: rings.RingPair | None, saving: Saving) -> State:
    return None if pair is None else [saving.descriptor(pair.descriptor), pair.state()]


def _resume_rings(state: State, restoring: Restoring) -> rings.RingPair | None:
    return None if state is None else rings.resume(restoring.descriptor(state[0]), state[1])


# Answers


def save_answer(answer: Answer, saving: Saving) -> State:
    pair = answer.rings
    return {
        "parts": [bytes(part) for part in answer.parts],
        "descriptors": [] if pair is not None else [saving.descriptor(descriptor) for descriptor in answer.descriptors],
        "results": [saving.result(result) for result in _results(answer)],
        "rings": _save_rings(pair, saving),
        "is_on_socket": answer.is_on_socket,
    }


def resume_answer(state: State, restoring: Restoring) -> Answer:
    pair = _resume_rings(state["rings"], restoring)
    answer = Answer(
        *state["parts"],
        # Also files that ports stand for: these are copies, which nobody else closes.
        descriptors=[restoring.descriptor(number) for number in state["descriptors"]]
        if pair is None
        else [pair.descriptor],
        gives_descriptors=pair is None and bool(state["descriptors"]),
        rings=pair,
    )
    results = [restoring.result(result) for result in state["results"]]
    if results:
        answer.result = results[0]
        answer.more = results[1:] or None
    answer.is_on_socket = state["is_on_socket"]
    return answer
