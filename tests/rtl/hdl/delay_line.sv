// A wire with CYCLES registers on it; none if CYCLES is 0.
module delay_line #(
    parameter int WIDTH = 1,
    parameter int CYCLES = 1
) (
    input  logic             clk,
    input  logic             rst,
    input  logic [WIDTH-1:0] in,
    output logic [WIDTH-1:0] out
);
    generate
        if (CYCLES == 0) begin : g_wire
            assign out = in;
            wire unused = clk ^ rst;
        end else begin : g_registers
            // The newest in the lowest bits; in steps of 32 bits, which a simulator shifts with little code.
            localparam int STEP = WIDTH <= 32 ? WIDTH : (WIDTH + 31) / 32 * 32;
            logic [CYCLES*STEP-1:0] line;
            wire  [(CYCLES+1)*STEP-1:0] next = {line, STEP'(in)};
            always_ff @(posedge clk)
                if (rst) line <= '0;
                else line <= next[CYCLES*STEP-1:0];
            assign out = next[CYCLES*STEP +: WIDTH];
        end
    endgenerate
endmodule
