// The shared bus: one arbiter, one set of wires that every port can drive, and their time of flight.
//
// Whoever is granted the bus drives nothing for OVERHEAD cycles (its port sees to that), then a beat a cycle.
// Ports that have nothing to say drive zeros, so that the wires are the OR of all ports.
module bus #(
    parameter int PORTS = 3,
    parameter int BEAT_BITS = 128,  // of a beat with what goes beside its data
    parameter int LATENCY = 1,
    parameter int REQUEST = 0,
    parameter int QUEUE = 64
) (
    input  logic                            clk,
    input  logic                            rst,
    input  logic [31:0]                     now,
    input  logic [PORTS-1:0]                ask,
    input  logic [PORTS-1:0]                ask_joins,
    input  logic [PORTS-1:0][15:0]          ask_order,
    input  logic [PORTS-1:0][16:0]          ask_cycles,
    output logic [PORTS-1:0]                grant,
    input  logic [PORTS-1:0][BEAT_BITS-1:0] driven,
    output logic [BEAT_BITS-1:0]            heard
);
    bus_arbiter #(.PORTS(PORTS), .REQUEST(REQUEST), .QUEUE(QUEUE)) arbiter (
        .clk, .rst, .now, .ask, .ask_joins, .ask_order, .ask_cycles, .grant
    );

    logic [BEAT_BITS-1:0] wires;
    always_comb begin
        wires = '0;
        for (int i = 0; i < PORTS; i = i + 1) wires = wires | driven[i];
    end

    delay_line #(.WIDTH(BEAT_BITS), .CYCLES(LATENCY)) flight (.clk, .rst, .in(wires), .out(heard));
endmodule
