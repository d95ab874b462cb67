`include "commands.svh"
// A unit's port of the bus: asks for the messages of its list in order, each as soon as what it waits for is there,
// and drives a granted one: OVERHEAD cycles of nothing, then a beat a cycle.
//
// A beat is {valid, last, to_root, first_pe, last_pe, done_slot, num_bytes, address, data}.
module bus_port #(
    parameter int BYTES = 8,
    parameter int OVERHEAD = 2,
    parameter int BEAT_BITS = 43 + 16 + 8 * BYTES
) (
    input  logic                   clk,
    input  logic                   rst,
    input  logic                   running,
    input  logic [15:0]            length,       // of the list
    output logic [15:0]            asking_for,   // the message it will ask for next, and that it drives
    output logic [15:0]            driving,
    input  logic [WORD_BITS-1:0]   asking_word,
    input  logic [WORD_BITS-1:0]   driving_word,
    input  logic                   ready,        // the waits of asking_word are fulfilled
    output logic                   ask,
    output logic                   ask_joins,
    output logic [15:0]            ask_order,
    output logic [16:0]            ask_cycles,
    input  logic                   grant,
    output logic [15:0]            read_addr,    // of the buffer; 2 * BYTES are read
    input  logic [16*BYTES-1:0]    read_data,
    output logic [BEAT_BITS-1:0]   driven,
    output logic                   done          // nothing left to ask for or to drive
);
    send_t wanted, sending;
    assign wanted = asking_word;
    assign sending = driving_word;

    function automatic logic [16:0] beats_of(input logic [15:0] num_bytes);
        beats_of = 17'((32'(num_bytes) + BYTES - 1) / BYTES);
    endfunction

    assign ask = running && asking_for < length && ready;
    assign ask_joins = wanted.joins;
    assign ask_order = wanted.order;
    assign ask_cycles = 17'(OVERHEAD) + beats_of(wanted.num_bytes);
    assign done = asking_for == length && driving == length;

    logic        busy;      // a message granted before this cycle
    logic [16:0] elapsed;   // cycles since its grant
    wire  [16:0] cycle = grant ? '0 : elapsed;
    wire         active = grant || busy;
    wire  [16:0] total = 17'(OVERHEAD) + beats_of(sending.num_bytes);
    wire         drives = active && 32'(cycle) + 1 > OVERHEAD;
    wire  [16:0] beat = cycle - 17'(OVERHEAD);
    wire  [31:0] offset = 32'(beat) * BYTES;
    wire         last = cycle + 1 == total;
    wire  [31:0] left = 32'(sending.num_bytes) - offset;
    wire  [7:0]  valid_bytes = left >= BYTES ? 8'(BYTES) : left[7:0];

    assign read_addr = sending.in_addr + 16'(sending.narrows ? offset << 1 : offset);
    logic [8*BYTES-1:0] data;
    logic signed [31:0] wide;
    always_comb begin
        data = read_data[8*BYTES-1:0];
        wide = '0;
        if (sending.narrows)
            for (int e = 0; e < BYTES / 2; e = e + 1) begin
                wide = $signed(read_data[32*e +: 32]) >>> sending.shift;
                data[16*e +: 16] = wide > 32767 ? 16'h7fff : wide < -32768 ? 16'h8000 : wide[15:0];
            end
    end
    assign driven = drives
        ? {1'b1, last, sending.to_root, sending.first_pe, sending.last_pe, sending.done_slot, 16'(valid_bytes),
           16'(sending.out_addr + offset[15:0]), data}
        : '0;

    always_ff @(posedge clk) begin
        if (rst) begin
            asking_for <= '0;
            driving <= '0;
            busy <= 1'b0;
            elapsed <= '0;
        end else begin
            if (ask) asking_for <= asking_for + 1'b1;
            if (active) begin
                elapsed <= cycle + 1'b1;
                busy <= !last;
                if (last) driving <= driving + 1'b1;
            end
        end
    end
endmodule
