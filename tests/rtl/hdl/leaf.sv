`include "commands.svh"
// A PE's leaf of the tree: presents the reductions of its list in order, and once one starts sends a beat a cycle:
// its slice of the payload, and the neutral element elsewhere.
//
// Beside a beat's data goes {valid, merges, combine, levels, last, to_root, done_slot, num_bytes, address}.
module leaf #(
    parameter int BYTES = 8,
    parameter int SIDE_BITS = 50
) (
    input  logic                         clk,
    input  logic                         rst,
    input  logic                         running,
    input  logic [15:0]                  length,
    output logic [15:0]                  index,
    input  logic [WORD_BITS-1:0]         word,
    input  logic                         ready,
    output logic                         present,
    output logic [15:0]                  order,
    output logic [3:0]                   ends_at,
    output logic                         merges,
    output logic [15:0]                  beats,
    input  logic                         start,
    output logic [15:0]                  read_addr,
    input  logic [8*BYTES-1:0]           read_data,
    output logic [SIDE_BITS+8*BYTES-1:0] sent,
    output logic                         done
);
    leaf_t command;
    assign command = word;

    logic        busy;
    logic [15:0] elapsed;
    wire  [15:0] beat = start ? '0 : elapsed;
    wire         active = start || busy;
    wire         last = beat + 1 == beats;
    wire  [31:0] offset = 32'(beat) * BYTES;
    wire  [31:0] left = 32'(command.num_bytes) - offset;

    assign present = running && !busy && index < length && ready;
    assign order = command.order;
    assign ends_at = command.levels;
    assign merges = command.merges;
    assign beats = 16'((32'(command.num_bytes) + BYTES - 1) / BYTES);
    assign done = index == length;

    // Byte b of the beat is byte offset + b of the payload, and if it is in the slice byte offset + b - slice_first of it.
    assign read_addr = command.in_addr + offset[15:0] - command.slice_first;
    logic [8*BYTES-1:0] neutral, data;
    always_comb begin
        neutral = '0;
        if (command.combine == COMBINE_MAX32)
            for (int b = 0; b < BYTES / 4; b = b + 1) neutral[32*b +: 32] = 32'h8000_0000;
        if (command.combine == COMBINE_ARGMAX64)
            for (int b = 0; b < BYTES / 8; b = b + 1) neutral[64*b +: 64] = 64'hffff_ffff_8000_0000;
        data = neutral;
        for (int b = 0; b < BYTES; b = b + 1)
            if (offset + b >= 32'(command.slice_first)
                && offset + b < 32'(command.slice_first) + 32'(command.slice_bytes))
                data[8*b +: 8] = read_data[8*b +: 8];
    end
    assign sent = active
        ? {1'b1, command.merges, command.combine, command.levels, last, command.to_root, command.done_slot,
           left >= BYTES ? 16'(BYTES) : left[15:0], 16'(command.out_addr + offset[15:0]), data}
        : '0;

    always_ff @(posedge clk) begin
        if (rst) begin
            index <= '0;
            busy <= 1'b0;
            elapsed <= '0;
        end else if (active) begin
            elapsed <= beat + 1'b1;
            busy <= !last;
            if (last) index <= index + 1'b1;
        end
    end
endmodule
