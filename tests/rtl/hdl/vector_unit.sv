`include "commands.svh"
// LANES elements at a time: out[e] = ((a[e] >> a_shift) op (b[e % b_period] << b_shift)) >> out_shift.
//
// A command takes steps * step_cycles + LATENCY cycles. Its elements are computed one step a cycle from the second
// cycle on: what a function costs beyond that is waiting.
module vector_unit #(
    parameter int LANES = 4,
    parameter int LATENCY = 4
) (
    input  logic                 clk,
    input  logic                 rst,
    input  logic                 start,
    input  logic [WORD_BITS-1:0] word,
    output logic                 done,
    output logic [15:0]          a_addr,
    input  logic [32*LANES-1:0]  a_data,
    output logic [15:0]          b_addr,        // of the whole operand, of which lane i reads element b_index + i
    output logic [15:0]          b_index,
    output logic [15:0]          b_period,
    output logic                 a_narrow,
    output logic                 b_narrow,
    input  logic [32*LANES-1:0]  b_data,
    output logic                 writing,
    output logic                 write_narrow,
    output logic                 write_pair,    // the first result is (value, index)
    output logic [15:0]          write_addr,
    output logic [7:0]           write_count,
    output logic [32*LANES-1:0]  write_data,
    output logic [31:0]          write_index
);
    vector_t given, command;
    assign given = word;

    logic        busy;
    logic [31:0] left;   // cycles after this one
    logic [15:0] element;
    wire  [31:0] duration = 32'(given.steps) * 32'(given.step_cycles) + LATENCY;
    assign done = start ? duration == 1 : busy && left == 0;

    wire         working = busy && element < command.elements;
    wire  [15:0] rest = command.elements - element;
    wire  [7:0]  count = rest > 16'(LANES) ? 8'(LANES) : rest[7:0];
    wire         is_argmax = command.operation == FUNCTION_ARGMAX;
    assign a_narrow = command.a_narrow;
    assign b_narrow = command.b_narrow;
    assign a_addr = command.a_addr + (command.a_narrow ? element << 1 : element << 2);
    assign b_addr = command.b_addr;
    assign b_index = element;
    assign b_period = command.b_period;

    logic signed [31:0] best, a, b, value;
    logic [31:0]        best_index, found_index;
    logic signed [31:0] found;
    always_comb begin
        write_data = '0;
        found = best;
        found_index = best_index;
        a = '0;
        b = '0;
        value = '0;
        for (int i = 0; i < LANES; i = i + 1) begin
            a = $signed(a_data[32*i +: 32]) >>> command.a_shift;
            b = $signed(b_data[32*i +: 32]) <<< command.b_shift;
            value = command.operation == FUNCTION_ADD ? a + b : command.operation == FUNCTION_MUL ? a * b : a;
            value = value >>> command.out_shift;
            if (command.out_narrow) value = value > 32767 ? 32767 : value < -32768 ? -32768 : value;
            write_data[32*i +: 32] = value;
            if (i < 32'(count) && (a > found || (element == 0 && i == 0))) begin
                found = a;
                found_index = command.index_base + 32'(element) + i;
            end
        end
        if (is_argmax) write_data[31:0] = found;
    end
    assign writing = working && (!is_argmax || 32'(element) + LANES >= 32'(command.elements));
    assign write_narrow = command.out_narrow;
    assign write_pair = is_argmax;
    assign write_count = is_argmax ? 8'd1 : count;
    assign write_addr = is_argmax ? command.out_addr
        : command.out_addr + (command.out_narrow ? element << 1 : element << 2);
    assign write_index = found_index;

    always_ff @(posedge clk) begin
        if (rst) begin
            busy <= 1'b0;
            left <= '0;
            element <= '0;
            command <= '0;
        end else if (start) begin
            command <= given;
            busy <= duration != 1;
            left <= duration - 2;
            element <= '0;
        end else if (busy) begin
            left <= left - 1'b1;
            if (left == 0) busy <= 1'b0;
            if (working) begin
                element <= element + 16'(LANES);
                best <= found;
                best_index <= found_index;
            end
        end
`ifndef SYNTHESIS
        if (!rst && start) assert (duration > (32'(given.elements) + LANES - 1) / LANES)
            else $error("a vector command ends before its elements are done");
`endif
    end
endmodule
