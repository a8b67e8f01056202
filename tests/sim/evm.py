"""As much of the EVM as programs need that read state: no gas, no writes to storage.

It knows nothing of the program under test. Source: the Ethereum yellow paper, appendix H.
"""

from __future__ import annotations

from collections.abc import Callable

Storage = Callable[[bytes], bytes]
"""Slot → word, of the contract that runs."""
StaticCall = Callable[[bytes, bytes], bytes | None]
"""Address, data → what is returned; None if the call fails."""

_WORD = 1 << 256


class Reverted(Exception):  # noqa: N818
    """The program gave up."""


def run(code: bytes, calldata: bytes, storage: Storage, static_call: StaticCall) -> bytes:
    """Run a program and return what it returns. ValueError for what is not known here."""
    stack: list[int] = []
    memory = bytearray()
    returned = b""
    place = 0

    def write(offset: int, value: bytes) -> None:
        read(offset, len(value))
        memory[offset : offset + len(value)] = value

    def read(offset: int, size: int) -> bytes:
        memory.extend(bytes(max(offset + size - len(memory), 0)))
        return bytes(memory[offset : offset + size])

    def jump(target: int) -> int:
        if code[target] != 0x5B:
            raise Reverted
        return target

    while place < len(code):
        op = code[place]
        place += 1
        pop = stack.pop
        if 0x60 <= op <= 0x7F:
            size = op - 0x5F
            stack.append(int.from_bytes(code[place : place + size], "big"))
            place += size
        elif 0x80 <= op <= 0x8F:
            stack.append(stack[-(op - 0x7F)])
        elif 0x90 <= op <= 0x9F:
            other = -(op - 0x8E)
            stack[-1], stack[other] = stack[other], stack[-1]
        elif op == 0x01:
            stack.append((pop() + pop()) % _WORD)
        elif op == 0x10:
            stack.append(int(pop() < pop()))
        elif op == 0x11:
            stack.append(int(pop() > pop()))
        elif op == 0x14:
            stack.append(int(pop() == pop()))
        elif op == 0x16:
            stack.append(pop() & pop())
        elif op == 0x35:
            offset = pop()
            stack.append(int.from_bytes(calldata[offset : offset + 32].ljust(32, b"\0"), "big"))
        elif op == 0x36:
            stack.append(len(calldata))
        elif op == 0x38:
            stack.append(len(code))
        elif op == 0x39:
            to, offset, size = pop(), pop(), pop()
            write(to, code[offset : offset + size].ljust(size, b"\0"))
        elif op == 0x3D:
            stack.append(len(returned))
        elif op == 0x52:
            offset, value = pop(), pop()
            write(offset, value.to_bytes(32, "big"))
        elif op == 0x54:
            stack.append(int.from_bytes(storage(pop().to_bytes(32, "big")), "big"))
        elif op == 0x56:
            place = jump(pop())
        elif op == 0x57:
            target, condition = pop(), pop()
            place = jump(target) if condition else place
        elif op == 0x5A:
            stack.append(30_000_000)
        elif op == 0x5B:
            pass
        elif op == 0xF3:
            offset, size = pop(), pop()
            return read(offset, size)
        elif op == 0xFA:
            _, address, offset, size, to, to_size = (pop() for _ in range(6))
            answer = static_call(address.to_bytes(32, "big")[12:], read(offset, size))
            returned = answer or b""
            write(to, returned[:to_size])
            stack.append(int(answer is not None))
        elif op == 0xFD:
            raise Reverted
        else:
            raise ValueError(f"operation 0x{op:02x} is not known here")
    return b""
